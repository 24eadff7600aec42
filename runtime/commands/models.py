"""`ignn models`: list the models that ship with the package."""

from __future__ import annotations

import argparse
import sys

from ..models import BundledModel, bundled_models

_KINDS = {
    "graph": "IGNN: a graph lends patches detail from one another",
    "errors": "IGNN-E: a graph lends patches what the backbone got wrong one scale below",
    "plain": "EDSR: convolutions alone, no graph",
}


def main(argv: list[str]) -> int:
    """Run `ignn models`; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="ignn models", description="List the bundled models, after checking each file against its checksum."
    )
    parser.parse_args(argv)
    models = bundled_models()
    if not models:
        sys.stdout.write("No model is bundled. Make one with `ignn export`, and give it with --model.\n")
    for index, model in enumerate(models):
        model.checked_path()
        sys.stdout.write(describe(model, default=index == 0))
    return 0


def describe(model: BundledModel, *, default: bool) -> str:
    """Return the lines that describe a model."""
    psnr = ", ".join(f"{name} {value:.2f} dB" for name, value in model.psnr_y_db.items())
    seconds = "not measured" if model.seconds is None else f"{model.seconds:.3g} for 256 x 256, {model.seconds_on}"
    lines = [
        f"{model.name}{' (default)' if default else ''}",
        f"  scale     x{model.scale}",
        f"  network   {_KINDS.get(model.kind, model.kind)}",
        f"  file      {model.file}, {model.size_bytes / 1e6:.1f} MB, {model.precision}",
        f"  sha256    {model.sha256}",
        f"  PSNR (Y)  {psnr or 'not measured'}",
        f"  seconds   {seconds}",
        f"  trained   {model.training_data}",
        f"  license   {model.license}",
    ]
    return "\n".join(lines) + "\n"
