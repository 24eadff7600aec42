"""The process that builds an engine; see `runtime.backends.engine_build`."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import BackendUnavailableError
from .engine_build import BuildReport, BuildRequest, read_request
from .engine_layers import engine_convolutions
from .plugin_library import build_command
from .tensorrt_library import NAMES, import_tensorrt, load_plugin, make_logger

_FLUSHED = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
"""The pipe to the parent. What libraries print on standard output goes to standard error instead."""


class RefusalError(Exception):
    """The network is not what was meant; the message is ours."""


def tell(**event: object) -> None:
    _FLUSHED.write(json.dumps(event, default=lambda value: value.__dict__) + "\n")


def build(request: BuildRequest, task: dict[str, Any]) -> BuildReport:
    trt = import_tensorrt(request.flavor)
    logger = make_logger(trt, lambda message: tell(said=message))
    builder = trt.Builder(logger)
    if request.plugin is not None and not load_plugin(trt, logger, request.plugin):
        raise RefusalError(
            f"{NAMES[request.flavor]} {trt.__version__} cannot load the plugin library {request.plugin}: it is damaged "
            f"or was built for another version. Build it again: {build_command()}"
        )
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)  # must outlive the network
    if not parser.parse(Path(task["model"]).read_bytes()):
        for index in range(parser.num_errors):
            tell(said=str(parser.get_error(index).desc()))
        raise SystemExit(1)
    report = _describe(trt, network, request, task)
    engine, tf32 = _serialize(trt, builder, network, parser, request)
    Path(task["output"]).write_bytes(engine)
    inside = request.plugin is not None and request.plugin.read_bytes() in engine
    if request.plugin_inside and request.plugin is not None and not inside:
        raise RefusalError("TensorRT left the plugin library out of the engine; build with --plugin-outside.")
    report |= {"plugin_inside": inside, "tf32": tf32, "engine_bytes": len(engine), "inspected": False}
    # TensorRT-RTX only compiles its kernels on the GPU that runs them: there is nothing to look into yet.
    found = engine_convolutions(trt, logger, engine, request.profile.optimum) if request.flavor == "tensorrt" else {}
    if found:
        _check_precision(found, task, "the engine")
        report |= {"convolutions": found, "inspected": True}
    return BuildReport(**report)


def _check_precision(convolutions: dict[str, int], task: dict[str, Any], what: str) -> None:
    if task["precision"] == "fp16" and not convolutions.get("HALF"):
        raise RefusalError(
            f"The ONNX file says fp16, but none of the convolutions of {what} computes in it. Export it again: "
            "ignn export --precision fp16"
        )


def _describe(trt: ModuleType, network: Any, request: BuildRequest, task: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Check the parsed network. It is strongly typed: the engine computes in the types that it has here."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    plugins = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
    calls = task["operator_calls"]
    if request.plugin is not None and plugins != calls:
        raise RefusalError(
            f"The ONNX file calls the graph operators {calls} times, but {NAMES[request.flavor]} {trt.__version__} "
            f"took the plugin for {plugins} of them. Is {request.plugin} our plugin library? Build it with: "
            f"{build_command()}"
        )
    convolutions = Counter(
        layer.get_output(0).dtype.name for layer in layers if layer.type == trt.LayerType.CONVOLUTION
    )
    _check_precision(convolutions, task, "the network")
    return {
        "version": trt.__version__,
        "operator_calls": calls,
        "plugin_layers": plugins,
        "convolutions": dict(convolutions),
    }


def _serialize(
    trt: ModuleType,
    builder: Any,  # noqa: ANN401
    network: Any,  # noqa: ANN401
    parser: Any,  # noqa: ANN401
    request: BuildRequest,
) -> tuple[bytes, bool]:
    """Build the engine; return its content, and whether TensorRT was allowed TF32."""
    if request.flavor == "tensorrt-rtx":
        sys.modules["tensorrt_rtx"] = trt  # the name that Polygraphy imports, whichever package it came in
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, PostprocessConfig
    from polygraphy.backend.trt import Profile as TrtProfile
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL + 1
    lr = network.get_input(0)
    wanted = request.profile
    sizes = [(n, lr.shape[1], h, w) for n, h, w in (wanted.minimum, wanted.optimum, wanted.maximum)]

    tf32 = False

    def postprocess(_builder: object, _network: object, config: Any) -> None:  # noqa: ANN401
        nonlocal tf32
        tf32 = config.get_flag(trt.BuilderFlag.TF32)
        if request.plugin is not None and request.plugin_inside:
            config.plugins_to_serialize = [str(request.plugin)]
        if request.compute_capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(_capability(trt, request.compute_capability), 0)

    timing_cache = None if request.timing_cache is None else str(request.timing_cache)
    config = CreateConfig(
        profiles=[TrtProfile().add(lr.name, *sizes)],
        tf32=request.tf32,
        load_timing_cache=timing_cache,
        progress_monitor=_make_monitor(trt),
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED if request.flavor == "tensorrt" else None,
    )
    build = EngineBytesFromNetwork(
        (builder, network, parser), PostprocessConfig(config, postprocess), save_timing_cache=timing_cache
    )
    try:
        return bytes(build()), tf32
    except PolygraphyException:  # TensorRT has told the logger why
        raise SystemExit(1) from None


def _network_flags(trt: ModuleType) -> int:
    """Ask for strong types, which TensorRT 10 must be told and newer ones have anyway."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _capability(trt: ModuleType, version: str) -> object:
    capability = getattr(trt.ComputeCapability, "SM" + version.replace(".", ""), None)
    if capability is None:
        names = sorted((n for n in dir(trt.ComputeCapability) if n.startswith("SM")), key=lambda n: int(n[2:]))
        known = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in names)
        raise RefusalError(
            f"Invalid --compute-capability ({version}). TensorRT-RTX {trt.__version__} supports {known}."
        )
    return capability


def _make_monitor(trt: ModuleType) -> object:
    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, tuple[bool, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase is None, num_steps)
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def _tell(self, phase: str, step: int) -> None:
            outer, steps = self._phases.get(phase, (False, 0))
            tell(progress=[outer, phase, step, steps])

    return Monitor()


def main() -> int:
    os.dup2(2, 1)
    request, task = read_request(Path(sys.argv[1]))
    try:
        tell(report=build(request, task))
    except RefusalError as refusal:
        tell(refused=str(refusal))
        return 1
    except BackendUnavailableError as error:
        tell(unavailable=str(error))
        return 1
    except ModuleNotFoundError as error:
        tell(unavailable=f"Building engines needs the module {error.name!r}. Install it with: pip install {error.name}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
