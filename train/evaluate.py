"""Measure networks by the paper's protocol: PSNR and SSIM on luma, bicubic beside them (also `ignn evaluate`).

Models are checkpoints (`.pt`, `.pth`: ours or the released ones) or ONNX files; folders hold HR images, which are
cropped to a multiple of the scale and reduced as MATLAB's `imresize` does. A grayscale file is measured as it stands,
on one channel. Results are rounded to 8 bits first; as many pixels as the scale are left out at each border.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from runtime.atomic import write_text
from runtime.cli import run_command
from runtime.clone import install_command
from runtime.errors import (
    BackendUnavailableError,
    DeviceMemoryError,
    InvalidImageError,
    ModelLoadError,
    ModelMetadataError,
    ModelNotFoundError,
    UsageError,
)
from runtime.metadata import Key
from runtime.pictures.turns import MeanOfTurns, all_turns
from train.checkpoint import read_checkpoint
from train.data import list_images, make_lr, read_rgb
from train.distributed import check_device
from train.metrics import psnr, ssim, to_gray, to_uint8
from train.resize import upsample_uint8

Upscale = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""LR (H, W, 3) uint8 to SR (scale * H, scale * W, 3) float, nominally 0..255, not rounded."""


@dataclass(frozen=True)
class Score:
    """One method on one image."""

    method: str
    dataset: str
    image: str
    psnr: float
    ssim: float
    seconds: float


def load_upscaler(
    path: str | os.PathLike[str], device: str = "cpu", *, scale: int | None = None, value_range: str | None = None
) -> tuple[Upscale, int]:
    """Open a checkpoint or an ONNX file.

    Args:
        path: the file.
        device: where a checkpoint runs.
        scale, value_range: of an ONNX file of another project, which says neither: 2, 3 or 4; "0..255" or "0..1".

    Returns:
        (function, scale).

    Raises:
        CheckpointError: it is not a checkpoint.
        ModelNotFoundError, ModelLoadError, ModelMetadataError: the ONNX file is missing, damaged, or does not say its
            scale.
        BackendUnavailableError: ONNX Runtime is not installed.
        UsageError: the device is not here.
    """
    if Path(path).suffix.lower() == ".onnx":
        return load_onnx_upscaler(Path(path), scale, value_range)
    return _load_network(Path(path), device)


def _load_network(path: Path, device: str) -> tuple[Upscale, int]:
    checkpoint = read_checkpoint(path)
    net = checkpoint.network().to(check_device(device))
    forward = net.forward_backbone if checkpoint.stage == "backbone" else net

    @torch.inference_mode()
    def upscale(lr: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(np.ascontiguousarray(lr)).to(device).permute(2, 0, 1)[None].float()
        return forward(tensor)[0].permute(1, 2, 0).cpu().numpy()

    return upscale, net.config.scale


def load_onnx_upscaler(path: Path, scale: int | None = None, value_range: str | None = None) -> tuple[Upscale, int]:
    """Open an ONNX file, whatever its name; arguments, result and errors are those of `load_upscaler`."""
    try:
        from runtime.backends.onnx_runtime import onnxruntime
        from runtime.backends.ort import run_options, session_options
    except ImportError as error:
        raise BackendUnavailableError(f"Measuring {path} needs ONNX Runtime. Run: {install_command('cpu')}") from error
    if not path.is_file():
        raise ModelNotFoundError(f"Model {path} does not exist. Give the path of a .pt, .pth or .onnx file.")
    try:
        session = onnxruntime.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
        raise ModelLoadError(f"ONNX Runtime cannot open {path}: {error}") from error
    own_scale = session.get_modelmeta().custom_metadata_map.get(Key.SCALE)
    if own_scale is None and (scale is None or value_range is None):
        raise ModelMetadataError(
            f"{path} does not say its scale (metadata {Key.SCALE}). Export it with `ignn export`; of another project's "
            "file give both: --scale 2 --value-range 0..1 (or 0..255)."
        )
    if own_scale not in (None, "2", "3", "4"):
        raise ModelMetadataError(
            f"{path} says a scale of {own_scale} (metadata {Key.SCALE}); 2, 3 and 4 are measured. Export it again with "
            "`ignn export`."
        )
    unit = 255 if own_scale is None and value_range == "0..1" else 1
    (input_name,) = (value.name for value in session.get_inputs())
    options = run_options()

    def upscale(lr: NDArray[np.uint8]) -> NDArray[np.float32]:
        (sr,) = session.run(None, {input_name: lr.astype(np.float32).transpose(2, 0, 1)[None] / unit}, options)
        return unit * sr[0].transpose(1, 2, 0)

    return upscale, int(own_scale or scale or 0)


def self_ensemble(upscale: Upscale) -> Upscale:
    """Return `upscale` averaged over the eight flips and rotations of its input (IGNN+)."""

    def ensemble(lr: NDArray[np.uint8]) -> NDArray[np.float32]:
        mean = MeanOfTurns()
        for turn in all_turns(lr):
            mean.add(upscale(np.ascontiguousarray(turn)))
        return mean.mean()

    return ensemble


def evaluate(methods: dict[str, Upscale], folders: Iterable[str | os.PathLike[str]], scale: int) -> list[Score]:
    """Score methods on every image of the folders.

    Args:
        methods: upscalers of this scale by name; "bicubic" is added in front.
        folders: folders of HR images.
        scale: 2, 3 or 4.

    Raises:
        UsageError: a folder holds no image.
        ImageReadError: an image cannot be read.
        InvalidImageError: an image is too small to be measured, or a method's result is of another size.
    """
    methods = {"bicubic": lambda lr: upsample_uint8(lr, scale).astype(np.float32), **methods}
    scores = []
    files = [(Path(folder), path) for folder in folders for path in list_images(folder)]
    with tqdm(total=len(files) * len(methods), unit="image", leave=False, disable=None) as bar:
        for folder, path in files:
            for score in score_image(path, folder.name, methods, scale):
                scores.append(score)
                bar.update()
    return scores


def score_image(path: Path, dataset: str, methods: dict[str, Upscale], scale: int) -> Iterator[Score]:
    """Score methods on one image, one after another; raises as `evaluate` does."""
    try:
        lr, hr = make_lr(read_rgb(path), scale)
        with Image.open(path) as image:
            gray = len(image.getbands()) == 1 and image.mode != "P"
        for name, upscale in methods.items():
            started = time.perf_counter()
            sr = to_uint8(upscale(lr))
            seconds = time.perf_counter() - started
            pair = (to_gray(sr), to_gray(hr)) if gray else (sr, hr)
            yield Score(name, dataset, path.name, psnr(*pair, scale), ssim(*pair, scale), round(seconds, 3))
    except InvalidImageError as error:
        raise InvalidImageError(f"Image {path}: {error}") from error


def summarise(scores: list[Score]) -> list[dict[str, Any]]:
    """Return the mean PSNR and SSIM of each method on each dataset, in order of appearance."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.method, score.dataset), []).append(score)
    return [
        {
            "method": method,
            "dataset": dataset,
            "images": len(group),
            "psnr": float(np.mean([score.psnr for score in group])),
            "ssim": float(np.mean([score.ssim for score in group])),
        }
        for (method, dataset), group in groups.items()
    ]


def markdown_table(summary: list[dict[str, Any]]) -> str:
    """Return methods as rows and datasets as columns, each cell "PSNR / SSIM"."""
    cells = {(row["method"], row["dataset"]): f"{row['psnr']:.2f} / {row['ssim']:.4f}" for row in summary}
    methods, datasets = (list(dict.fromkeys(row[name] for row in summary)) for name in ("method", "dataset"))
    lines = [["method", *datasets], ["---"] * (1 + len(datasets))]
    lines += [[method, *(cells[method, dataset] for dataset in datasets)] for method in methods]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ignn evaluate", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="checkpoint or ONNX file; none: bicubic alone")
    parser.add_argument("--data", required=True, action="append", metavar="FOLDER", help="HR images; may be repeated")
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), help="default: the models' own")
    parser.add_argument(
        "--value-range", choices=("0..255", "0..1"), help="of another project's ONNX file; give --scale as well"
    )
    parser.add_argument(
        "--self-ensemble", action="store_true", help="add a row per model: mean of 8 flips and rotations"
    )
    parser.add_argument("--device", default="cpu", help="where checkpoints run: cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write scores and means here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here as well")
    arguments = parser.parse_args(argv)
    if not arguments.models and not arguments.scale:
        parser.error("without a MODEL, --scale is needed: one of 2, 3, 4")
    return arguments


def _run(arguments: argparse.Namespace) -> None:
    for written in (arguments.json, arguments.markdown):  # before an hour of measuring, not after it
        if written and not written.parent.is_dir():
            raise UsageError(f"Folder {written.parent} does not exist. Create it first: mkdir -p {written.parent}")
    methods: dict[str, Upscale] = {}
    scale = arguments.scale
    for path in arguments.models:
        upscale, own_scale = load_upscaler(
            path, arguments.device, scale=arguments.scale, value_range=arguments.value_range
        )
        if scale not in (None, own_scale):
            raise UsageError(f"Model {path} upscales x{own_scale}, not x{scale}. Evaluate each scale in its own run.")
        scale, name = own_scale, path if Path(path).stem in methods else Path(path).stem
        methods[name] = upscale
        if arguments.self_ensemble:
            methods[f"{name}+"] = self_ensemble(upscale)
    scores = evaluate(methods, arguments.data, scale)
    summary = summarise(scores)
    table = markdown_table(summary)
    sys.stdout.write(f"x{scale}, PSNR (dB) / SSIM on luma\n\n{table}")
    if arguments.json:
        content = {"scale": scale, "summary": summary, "scores": [asdict(score) for score in scores]}
        write_text(arguments.json, json.dumps(content, indent=1) + "\n")
    if arguments.markdown:
        write_text(arguments.markdown, table)


def main(argv: list[str] | None = None) -> int:
    """Measure as the flags say and print a Markdown table."""
    try:
        _run(_parse(argv))
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(f"Memory of the GPU ran out ({error}). Measure with --device cpu.") from error
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m train.evaluate", main))
