"""OpenVINO: Intel's and other CPUs, and Intel's GPUs."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..clone import install_command
from ..errors import BackendUnavailableError, IgnnError, ModelLoadError, UsageError
from ..metadata import Key, ModelMetadata, read_metadata
from . import PRECISIONS, BackendMemoryError, Box, closed
from .foreign import ForeignNetwork, read_signature
from .inlining import inline
from .memory import free_host_memory, return_freed_memory, says_no_memory
from .onnx_file import read_facts

_MEMORY_FACTOR = 2
"""Peak memory of a run over that of ONNX Runtime, which the model file says: 1.8 is measured."""

_MOST_SHAPES = 4
"""Compiled shapes that are kept: the crops of a row of tiles have up to three."""

_TYPES = {"f32": "tensor(float)", "f16": "tensor(float16)"}


class _Port(NamedTuple):
    """An input or output, as ONNX Runtime describes one."""

    name: str
    type: str
    shape: list[int | str]


class OpenVinoBackend:
    """One network in OpenVINO, compiled anew for each shape of its input.

    Compiling takes a second or more for each shape. Compiled for any shape, a run takes twice the memory.

    Args:
        path: path of an ONNX file. Functions, which OpenVINO does not take, are put in place of their calls.
        source: what to call the model in messages.
        device: `CPU`, `GPU`, or one of several GPUs, `GPU.1`; None: the CPU.
        precision: what it computes in: `fp32`, or `bf16` where the device has it.
        threads: CPU threads of one run; None: all cores that the process may use.
        scale, value_range: of a foreign model.

    Raises:
        BackendUnavailableError: OpenVINO or the device is not here, or the device lacks the precision.
        ModelLoadError, ModelMetadataError: as of `OrtBackend`.
        UsageError: an argument has a value that is not accepted.
    """

    takes_bytes = False
    stages = None

    def __init__(
        self,
        path: Path,
        *,
        source: str,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        scale: int | None = None,
        value_range: str | None = None,
    ) -> None:
        self._ov = import_openvino()
        self._core = self._ov.Core()
        self._device = _check_device(device or "CPU", self._core.available_devices)
        self.on_host = self._device == "CPU"
        self._precision = precision or "fp32"
        self._check_precision()
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._wanted_type(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            if not self.on_host:
                raise UsageError(f"threads are the CPU's; leave them out for device {self._device!r}.")
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._running = threading.Lock()
        self._request: Any = None
        self._cancelled = False
        self._compiled: dict[tuple[int, ...], Any] = {}
        version = self._ov.get_version().split("-")[0]
        self.description = f"OpenVINO {version} ({self._device}, {self._precision})"
        content = path.read_bytes()
        properties = read_facts(content, source=source).properties
        inlined = inline(content, source=source)
        try:
            # By its path where that is possible: weights may lie in files beside it.
            self._model = self._core.read_model(str(path) if inlined is content else inlined)
        except Exception as error:  # OpenVINO raises RuntimeError for whatever happens
            raise ModelLoadError(f"{source} cannot be loaded by {self.description}: {_reason(error)}") from error
        del content, inlined
        ports = [[_port(port) for port in ports] for ports in (self._model.inputs, self._model.outputs)]
        signature = read_signature(source, *ports, ours=Key.FORMAT in properties)
        metadata = read_metadata(properties, source=source, scale=scale, value_range=value_range)
        self.metadata: ModelMetadata = replace(
            metadata, bytes_per_pixel=metadata.bytes_per_pixel * _MEMORY_FACTOR, stages=None
        )
        self.largest_input = signature.largest_input
        self._foreign: ForeignNetwork | None = None
        if Key.FORMAT not in properties:
            self._foreign = ForeignNetwork(source, signature, self.metadata, self._call)
            self.metadata = self._foreign.metadata

    def run(self, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Backend.run`."""
        if self._foreign is not None:
            return self._foreign.run(self._call, lr)
        return np.asarray(self._call(lr), np.float32)

    def run_kept(self, lr: NDArray[np.float32], kept: Box) -> NDArray[np.float32]:
        """See `Backend.run_kept`: all of it."""
        return self.run(lr)

    def run_all(self, inputs: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """See `Backend.run_all`."""
        return map(self.run, inputs)

    def cancel(self) -> None:
        """See `Backend.cancel`."""
        self._cancelled = True
        request = self._request
        if request is not None:
            request.cancel()

    def free_memory(self) -> int:
        """See `Backend.free_memory`."""
        if self.on_host:
            return free_host_memory()
        return min(free_host_memory(), int(self._core.get_property(self._device, "GPU_DEVICE_TOTAL_MEM_SIZE")))

    def close(self) -> None:
        """See `Backend.close`."""
        with self._running:
            self._compiled.clear()
            self._model = self._core = None
        return_freed_memory()

    def _call(self, lr: NDArray[Any]) -> NDArray[Any]:
        """Run the network itself."""
        with self._running:  # it uses all cores, or the whole device
            if self._model is None:
                raise closed(self.metadata)
            if self._cancelled:
                raise IgnnError("The run was cancelled.")
            try:
                given = np.ascontiguousarray(lr)  # OpenVINO's tensor does not keep it alive
                self._request = self._compile(lr.shape).create_infer_request()
                self._request.set_input_tensor(self._ov.Tensor(given, shared_memory=True))
                self._request.infer()
                return np.array(self._request.get_output_tensor().data)
            except IgnnError:
                raise
            except Exception as error:
                if isinstance(error, MemoryError) or says_no_memory(error):
                    self._compiled.clear()
                    raise BackendMemoryError(_reason(error)) from error
                raise IgnnError(
                    f"{self.description} failed on an input of shape {lr.shape}: {_reason(error)}"
                ) from error
            finally:
                self._request = None

    def _compile(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - OpenVINO's CompiledModel
        """Return the network compiled for one shape; those used last are kept while there is memory."""
        compiled = self._compiled.pop(shape, None)
        if compiled is None:
            pixels = shape[0] * shape[2] * shape[3]
            if self.free_memory() < 2 * pixels * self.metadata.bytes_per_pixel:
                self._compiled.clear()
            while len(self._compiled) >= _MOST_SHAPES:
                del self._compiled[next(iter(self._compiled))]
            model = self._model.clone()
            model.reshape({0: list(shape)})
            compiled = self._core.compile_model(model, self._device, self._options)
            self._check_compiled(compiled)
            return_freed_memory()
        self._compiled[shape] = compiled
        return compiled

    def _wanted_type(self) -> Any:  # noqa: ANN401 - OpenVINO's Type
        return {"fp32": self._ov.Type.f32, "bf16": self._ov.Type.bf16}[self._precision]

    def _check_precision(self) -> None:
        """Refuse a precision that the device lacks: OpenVINO would compute in another one, and not say so."""
        if self._precision not in PRECISIONS:
            raise UsageError(
                f"Invalid precision ({self._precision!r}). Supported values are {', '.join(map(repr, PRECISIONS))}."
            )
        if self._precision == "bf16" and "BF16" not in self._core.get_property(
            self._device, "OPTIMIZATION_CAPABILITIES"
        ):
            raise self._lacks_precision()

    def _check_compiled(self, compiled: Any) -> None:  # noqa: ANN401 - OpenVINO's CompiledModel
        if compiled.get_property("INFERENCE_PRECISION_HINT") != self._wanted_type():
            raise self._lacks_precision()

    def _lacks_precision(self) -> BackendUnavailableError:
        name = self._core.get_property(self._device, "FULL_DEVICE_NAME").strip()
        return BackendUnavailableError(
            f"OpenVINO's {self._device} ({name}) does not compute in {self._precision}: it would take another "
            'precision. Ask for float32: --precision fp32, in Python precision="fp32".'
        )


def import_openvino() -> Any:  # noqa: ANN401 - the module
    """Return OpenVINO's module, imported without its telemetry.

    Importing it writes into the user's home folder and reports to Intel through Google Analytics, unless a file there
    says otherwise; no variable does. Without the telemetry's package it uses a stand-in that does nothing. A program
    that has imported either before keeps what it has.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    modules: dict[str, Any] = sys.modules
    hidden = "openvino_telemetry"
    modules.setdefault(hidden, None)
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"OpenVINO cannot be imported ({error}). Install it with: {install_command('openvino')}"
        ) from error
    finally:
        if modules[hidden] is None:
            del modules[hidden]
    return openvino


def _check_device(device: str, available: list[str]) -> str:
    if not re.fullmatch(r"CPU|GPU(\.\d+)?", device):
        raise UsageError(f"Invalid device ({device!r}). Of OpenVINO CPU, GPU, and GPU.0, GPU.1 ... are supported.")
    if device not in available and not (device == "GPU" and "GPU.0" in available):
        raise BackendUnavailableError(
            f"OpenVINO finds no {device} here (it finds {', '.join(available) or 'none'}). A GPU of Intel needs its "
            "compute driver (intel-opencl-icd on Debian and Ubuntu). Or leave out the device for the CPU."
        )
    return device


def _port(port: Any) -> _Port:  # noqa: ANN401 - OpenVINO's Output
    kind = port.element_type.get_type_name()
    shape = port.partial_shape
    sizes: list[int | str] = []
    if shape.rank.is_static:
        sizes = [size.get_length() if size.is_static else "?" for size in shape]
    return _Port(port.any_name, _TYPES.get(kind, kind), sizes)


def _reason(error: Exception) -> str:
    """Return what OpenVINO says, without the places in its own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(kept)[:300] or type(error).__name__
