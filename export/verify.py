"""The same image through every runtime, compared: `ignn verify`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.sample import sample
from runtime.backends.onnx_file import read_facts
from runtime.backends.opening import find_model_file
from runtime.backends.tensorrt_library import FLAVORS, NAMES, Flavor
from runtime.cli import run_command
from runtime.clone import install_command
from runtime.errors import BackendUnavailableError, IgnnError, UsageError
from runtime.metadata import Key
from runtime.pictures.psnr import psnr_db

if TYPE_CHECKING:
    from train import IGNN

BOUNDS_DB = {"fp32": 70.0, "fp16": 50.0}
"""Least PSNR (peak 255) between two runtimes, by precision. A neighbor that rounding exchanges moves few pixels, but
far: the mean over the image tells a wrong runtime from rounding, the largest difference does not."""

OUTPUT = "sr"
"""The network's output."""

Map = NDArray[np.float32]


class NotRunError(IgnnError):
    """A runtime cannot run here, or was not given what it needs; the message says which."""


class DifferenceError(IgnnError):
    """Runtimes make different pictures of one image. Export again, and build engines again."""


def main(argv: list[str] | None = None) -> int:
    """Compare runtimes as the flags say (`ignn verify`); succeeds only if two or more ran and agree."""
    arguments = _parser().parse_args(argv)
    _polygraphy()  # before the runtimes take their time
    path, source, _ = find_model_file(arguments.model)
    model = path.read_bytes()
    properties = read_facts(model, source=source).properties
    precision = properties.get(Key.PRECISION, "fp32")
    bound = BOUNDS_DB.get(precision, BOUNDS_DB["fp32"])
    lr = sample(1, 96, 130, seed=0) if arguments.image is None else _read(arguments.image)
    sys.stdout.write(f"{source} ({precision}), lr {' x '.join(map(str, lr.shape))}\n")
    runs: dict[str, Callable[[], Map]] = {
        "PyTorch": lambda: _pytorch(arguments.checkpoint, properties.get(Key.WEIGHTS_SHA256), source, lr),
        "ONNX Runtime": lambda: _onnx_runtime(path, source, lr),
        NAMES[arguments.backend]: lambda: _tensorrt(model, source, arguments.backend, arguments.engine, lr),
    }
    results: dict[str, Map] = {}
    for name, run in runs.items():
        try:
            results[name] = run()
        except (NotRunError, BackendUnavailableError) as error:
            sys.stdout.write(f"  {name}: not run. {error}\n")
    if len(results) < 2:
        raise UsageError("Fewer than two runtimes ran, so nothing was compared. The lines above say what is missing.")
    reference, *others = results
    wrong = []
    for name in others:
        agrees, line = compare(results[reference], results[name], bound)
        sys.stdout.write(f"  {OUTPUT}, {name} against {reference}: {line}\n")
        if not agrees:
            wrong.append(name)
    if wrong:
        raise DifferenceError(
            f"{', '.join(wrong)} differ from {reference} by more than rounding explains (under {bound:g} dB). "
            "Export again, build engines again, and report it if that does not help."
        )
    return 0


def compare(expected: Map, actual: Map, bound_db: float) -> tuple[bool, str]:
    """Compare two results by Polygraphy's comparator.

    Args:
        expected, actual: `sr` of two runtimes, (N, 3, H, W), 0..255.
        bound_db: least PSNR.

    Returns:
        Whether they agree, and a line that says how well.

    Raises:
        BackendUnavailableError: Polygraphy is not installed.
    """
    comparator, struct = _polygraphy()
    runs = struct.RunResults()
    for name, sr in (("expected", expected), ("actual", actual)):
        runs.add([{OUTPUT: sr}], runner_name=name)

    def psnr(reference: Mapping[str, Map], other: Mapping[str, Map]) -> dict[str, object]:
        """Compare by a peak of 255: Polygraphy's own takes the picture's largest value, which fails dark pictures."""
        threshold = comparator.PsnrThreshold(bound_db)
        return {name: comparator.PsnrResult(_psnr_db(sr, other[name]), threshold) for name, sr in reference.items()}

    # The mean difference is below the root of the mean square that the PSNR bounds: the PSNR decides.
    difference = comparator.SimpleCompareFunc(atol=255 * 10 ** (-bound_db / 20), rtol=0, check_error_stat="mean")
    accuracy = comparator.Comparator.compare_accuracy(runs, compare_func=[psnr, difference])
    agrees = bool(accuracy)
    if expected.shape != actual.shape:
        return False, f"shape {actual.shape}, {expected.shape} expected"
    if not np.isfinite(actual).all():
        return False, f"{int((~np.isfinite(actual)).sum())} values are NaN or infinite"
    by_psnr, by_difference = (result["expected", "actual"][0][OUTPUT] for result in accuracy)
    return agrees, (
        f"PSNR {by_psnr.psnr:.1f} dB, differences up to {by_difference.max_absdiff:.3g}, "
        f"{by_difference.mean_absdiff:.2g} on average"
    )


def _psnr_db(expected: Map, actual: Map) -> float:
    """Return the PSNR (peak 255) in dB; NaN, which no bound accepts, for other shapes and non-finite values."""
    if expected.shape != actual.shape:
        return float("nan")
    return psnr_db(actual, expected)


def _polygraphy() -> tuple[ModuleType, ModuleType]:
    """Import its comparator and containers, silenced: what they say, the result says."""
    try:
        from polygraphy import comparator
        from polygraphy.comparator import struct
        from polygraphy.logger import G_LOGGER
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"Comparing needs Polygraphy ({error.name} is missing). Install it with: pip install 'polygraphy>=0.53,<1'"
        ) from error
    G_LOGGER.module_severity = G_LOGGER.CRITICAL + 1
    return comparator, struct


def _read(path: Path) -> Map:
    from runtime.pictures.picture import network_input
    from runtime.pictures.read import read_still

    return np.ascontiguousarray(network_input(read_still(path)).transpose(2, 0, 1)[None], dtype=np.float32)


def _pytorch(checkpoint: Path | None, fingerprint: str | None, source: str, lr: Map) -> Map:
    if checkpoint is None:
        raise NotRunError("Give the checkpoint that the file was exported from: --checkpoint C")
    try:
        import torch

        from export.to_onnx import load_trained
    except ModuleNotFoundError as error:
        raise NotRunError(f"{error.name} is not installed: {install_command('train')}") from error
    net = _same_weights(load_trained(checkpoint), checkpoint, fingerprint, source)
    with torch.no_grad():
        return np.asarray(net(torch.from_numpy(lr)).numpy(), dtype=np.float32)


def _same_weights(net: IGNN, checkpoint: Path, fingerprint: str | None, source: str) -> IGNN:
    """Say whether a file was exported from a checkpoint; return its network, with the weights that the file has.

    Args:
        net: the checkpoint's network.
        fingerprint: the file's `ignn.weights_sha256`; None: it has none.

    Raises:
        DifferenceError: the file has other weights, so that a comparison would tell nothing.
    """
    from export.metadata import weights_sha256
    from export.precision import round_weights

    if fingerprint is None:
        sys.stdout.write(f"  weights: not known whether those of {checkpoint}: the file has no {Key.WEIGHTS_SHA256}\n")
        return net
    own = weights_sha256(net)
    if own == fingerprint:
        sys.stdout.write(f"  weights: the same as those of {checkpoint}\n")
        return net
    rounded = round_weights(net)
    if weights_sha256(rounded) == fingerprint:
        sys.stdout.write(f"  weights: those of {checkpoint} rounded to float16, as `--weights fp16` stores them\n")
        return rounded
    raise DifferenceError(
        f"{source} has other weights than {checkpoint} (SHA-256 {fingerprint[:12]}..., {own[:12]}...): it was exported "
        f"from another checkpoint. Name that one, or export this one: ignn export --checkpoint {checkpoint} --output "
        "M.onnx"
    )


def _onnx_runtime(path: Path, source: str, lr: Map) -> Map:
    try:
        from runtime.backends.ort import OrtBackend
    except ImportError as error:
        raise NotRunError(f"It cannot be imported ({error}): {install_command('cpu')}") from error
    with closing(OrtBackend(path, source=source, providers=["cpu"])) as backend:
        return backend.run(lr)


def _tensorrt(model: bytes, source: str, flavor: Flavor, engine: Path | None, lr: Map) -> Map:
    from runtime.backends.trt import TrtBackend

    if engine is None and read_facts(model, source=source).is_inlined:
        raise NotRunError("It was exported with --inline; TensorRT needs the default file of `ignn export`.")
    try:
        content = None if engine is None else engine.read_bytes()
    except OSError as error:
        raise UsageError(f"Invalid --engine ({engine}): {error.strerror}. Make one with `ignn build`.") from error
    with closing(TrtBackend(model, source=source, flavor=flavor, engine=content)) as backend:
        return backend.run(lr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ignn verify", description="Compare what runtimes make of the same image.")
    parser.add_argument("model", type=Path, metavar="M.onnx", help="file made by `ignn export`")
    parser.add_argument("--checkpoint", type=Path, metavar="C", help="what it was exported from, for PyTorch")
    parser.add_argument("--engine", type=Path, metavar="E", help="of `ignn build` (default: built on first use)")
    parser.add_argument("--backend", choices=FLAVORS, default="tensorrt", help="which TensorRT (default %(default)s)")
    parser.add_argument("--image", type=Path, metavar="I", help="image to enlarge (default: a generated one)")
    return parser


if __name__ == "__main__":
    sys.exit(run_command("python -m export.verify", main))
