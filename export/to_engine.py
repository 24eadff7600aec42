"""ONNX file in, TensorRT engine out: `ignn build`."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from pathlib import Path

from runtime.backends.engine_build import BuildReport, BuildRequest, Profile, Size, build_engine
from runtime.backends.engine_file import EngineFacts, write_engine_facts
from runtime.backends.gpus import list_gpus
from runtime.backends.memory import total_device_memory
from runtime.backends.onnx_file import read_facts, refuse_inlined
from runtime.backends.plugin_library import check_plugin
from runtime.backends.tensorrt_library import FLAVORS, NAMES, Flavor, check_flavor
from runtime.cli import run_command
from runtime.errors import EngineBuildError, ModelNotFoundError, UsageError
from runtime.metadata import Key

DEFAULT_TILE = 256
MAX_BATCH, MAX_HEIGHT, MAX_PIXELS = 65535, 262_140, 2**31 - 128
"""What the kernels take (plugins/kernels/geometry.h); the plugin checks its own inputs by these too."""


def main(argv: list[str] | None = None) -> int:
    """Build an engine as the flags say (`ignn build`)."""
    arguments = _parser().parse_args(argv)
    try:
        model = arguments.model.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"There is no ONNX file {arguments.model} that can be read ({error.strerror}). Make one with `ignn export`."
        ) from error
    if arguments.timing_cache is not None and not arguments.timing_cache.parent.is_dir():
        raise UsageError(f"Invalid --timing-cache ({arguments.timing_cache}): its folder does not exist.")
    flavor = check_flavor(arguments.backend)
    facts = read_facts(model, source=str(arguments.model))
    refuse_inlined(facts, source=str(arguments.model))
    request = BuildRequest(
        flavor,
        _profile(arguments, halo=facts.properties.get(Key.HALO, "0")),
        plugin=None if arguments.no_plugin or not facts.operator_calls else check_plugin(arguments.plugin),
        plugin_inside=not arguments.plugin_outside,
        compute_capability=_capability(arguments.compute_capability, flavor),
        timing_cache=arguments.timing_cache,
        tf32=arguments.tf32,
    )
    if bytes_per_pixel := facts.properties.get("ignn.bytes_per_pixel"):
        _check_memory(request.profile.maximum, int(bytes_per_pixel))
    sys.stdout.write(f"Building an engine of {arguments.model} with {NAMES[flavor]}: {request.profile} ...\n")
    sys.stdout.flush()
    start = time.monotonic()
    report = build_engine(model, request, arguments.output, source=str(arguments.model))
    write_engine_facts(
        arguments.output,
        EngineFacts(
            engine_sha256=hashlib.sha256(arguments.output.read_bytes()).hexdigest(),
            model_sha256=hashlib.sha256(model).hexdigest(),
            model=arguments.model.name,
            flavor=flavor,
            tensorrt=report.version,
            compute_capability=request.compute_capability,
            properties=facts.properties,
            operator_calls=facts.operator_calls,
        ),
    )
    for line in describe(report, request):
        sys.stdout.write(f"  {line}\n")
    sys.stdout.write(
        f"Wrote {arguments.output} ({report.engine_bytes / 1e6:.1f} MB) in {time.monotonic() - start:.0f} s.\n"
    )
    return 0


def describe(report: BuildReport, request: BuildRequest) -> list[str]:
    """Describe what was built, a line each: the plugin's layers, where its library is, the convolutions' types."""
    if not report.operator_calls:
        graph = "The network has no graph operators and needs no plugin."
    elif report.plugin_layers:
        inside = (
            "the plugin library is inside the engine"
            if report.plugin_inside
            else f"the engine needs {request.plugin} loaded"
        )
        graph = f"All {report.operator_calls} graph operators are plugin layers; {inside}."
    else:
        graph = f"No plugin: the {report.operator_calls} graph operators run as their ONNX bodies, slowly."
    types = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
    counts = ", ".join(f"{number} in {types.get(name, name)}" for name, number in sorted(report.convolutions.items()))
    name = NAMES[request.flavor]
    if report.inspected:
        source = "by the engine's inspector"
    elif request.flavor == "tensorrt-rtx":
        source = f"in the network, whose types are binding; {name} compiles the engine's layers on the GPU that runs it"
    else:
        source = "in the network, whose types are binding; the engine's inspector does not tell"
    tf32 = " Those in fp32 may round to TF32." if report.tf32 else ""
    return [f"{name} {report.version}", graph, f"Convolutions: {counts or 'none'} ({source}).{tf32}"]


def _profile(arguments: argparse.Namespace, *, halo: str) -> Profile:
    if arguments.tile is not None and (arguments.opt or arguments.max):
        raise UsageError("--tile sets --opt and --max; give one or the others.")
    tile = DEFAULT_TILE if arguments.tile is None else arguments.tile
    if tile < 1:
        raise UsageError(f"Invalid --tile ({tile}). Whole numbers from 1 are supported.")
    side = tile + 2 * int(halo)  # a tile with its context on both sides
    minimum = _size(arguments.min, "--min", (1, 1, 1))
    optimum = _size(arguments.opt, "--opt", _size(arguments.max, "--max", (1, side, side)))
    profile = Profile(minimum, optimum, _size(arguments.max, "--max", optimum))
    n, height, width = profile.maximum
    if n > MAX_BATCH or height > MAX_HEIGHT or height * width > MAX_PIXELS:
        raise UsageError(
            f"Invalid --max ({n}x{height}x{width}). A batch of at most {MAX_BATCH} is supported, and pictures of at "
            f"most {MAX_PIXELS} pixels and {MAX_HEIGHT} rows; larger pictures are computed in tiles."
        )
    if not profile.holds(optimum) or not profile.holds(minimum):
        raise UsageError(f"Invalid profile ({profile}): --min must not exceed --opt, nor --opt --max.")
    return profile


def _check_memory(size: Size, bytes_per_pixel: int) -> None:
    """Refuse what no engine could hold: a quarter of what ONNX Runtime takes for the same in float32."""
    n, height, width = size
    needed, there = n * height * width * bytes_per_pixel // 4, total_device_memory()
    if there is not None and needed > there:
        raise UsageError(
            f"Invalid --max ({n}x{height}x{width}): inputs of this size take at least {needed / 1e9:.1f} GB, and the "
            f"GPU has {there / 1e9:.1f} GB. Give a smaller --max; larger pictures are computed in tiles."
        )


def _size(text: str | None, option: str, default: Size) -> Size:
    if text is None:
        return default
    if not re.fullmatch(r"[1-9]\d{0,5}x[1-9]\d{0,5}x[1-9]\d{0,5}", text, re.ASCII):
        raise UsageError(f"Invalid {option} ({text!r}). Batch, height and width are expected: 1x540x960.")
    n, height, width = map(int, text.split("x"))
    return n, height, width


def _capability(text: str | None, flavor: Flavor) -> str | None:
    if text is not None:
        if flavor != "tensorrt-rtx":
            raise UsageError("--compute-capability is for --backend tensorrt-rtx; TensorRT builds for this GPU.")
        if not re.fullmatch(r"\d{1,2}\.\d", text, re.ASCII):
            raise UsageError(f"Invalid --compute-capability ({text!r}). It has the form 8.6.")
        return text
    gpus = list_gpus()
    if gpus:
        return gpus[0].compute_capability if flavor == "tensorrt-rtx" else None
    if flavor == "tensorrt-rtx":
        raise UsageError("No GPU was found (nvidia-smi lists none): say for which to build, --compute-capability 8.6.")
    raise EngineBuildError(
        "TensorRT builds engines on the GPU they are for, and none was found (nvidia-smi lists none). Run this on that "
        "machine, or without a GPU: --backend tensorrt-rtx --compute-capability 8.6."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ignn build", description="Build a TensorRT engine from an ONNX file.")
    parser.add_argument("model", type=Path, metavar="M.onnx", help="file made by `ignn export`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="M.engine", help="file to write")
    parser.add_argument("--backend", choices=FLAVORS, default="tensorrt", help="which builds it (default %(default)s)")
    parser.add_argument("--compute-capability", metavar="8.6", help="of the GPU it is for (RTX; default: the GPU here)")
    plugin = parser.add_argument_group("plugin")
    plugin.add_argument("--plugin", type=Path, metavar="LIB", help="plugin library (default: $IGNN_PLUGIN, build/)")
    plugin.add_argument("--plugin-outside", action="store_true", help="leave the library out of the engine file")
    plugin.add_argument("--no-plugin", action="store_true", help="try the operators' ONNX bodies instead")
    sizes = parser.add_argument_group("sizes, as batch x height x width, in LR pixels")
    sizes.add_argument("--tile", type=int, help=f"for tiles of this side and their context (default {DEFAULT_TILE})")
    sizes.add_argument("--min", metavar="NxHxW", help="smallest input (default 1x1x1)")
    sizes.add_argument("--opt", metavar="NxHxW", help="input that the engine is fastest at (default: --max)")
    sizes.add_argument("--max", metavar="NxHxW", help="largest input (default: --opt)")
    parser.add_argument(
        "--tf32", action="store_true", help="let fp32 layers round to TF32 (10 bits): faster, less exact"
    )
    parser.add_argument("--timing-cache", type=Path, metavar="F", help="file of measurements, read and extended")
    return parser


if __name__ == "__main__":
    sys.exit(run_command("python -m export.to_engine", main))
