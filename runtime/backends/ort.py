"""ONNX Runtime: CPU, CUDA and TensorRT providers, and those that are plugins: TensorRT-RTX, OpenVINO, WebGPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clone import install_command
from ..errors import (
    BackendUnavailableError,
    IgnnError,
    ModelLoadError,
    ProviderFallbackError,
    UsageError,
    first_line,
)
from ..metadata import Key, ModelMetadata, StageFacts, read_metadata
from . import BackendMemoryError, Box, closed
from .foreign import ForeignNetwork, read_signature
from .memory import free_device_memory, free_host_memory, return_freed_memory, says_no_memory
from .onnx_runtime import onnxruntime as ort
from .plugin_providers import add_plugin, has_plugin, is_installed
from .stages import StagedNetwork

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
"""Our short names of ONNX Runtime's providers; its own names are accepted too."""

Provider = str | tuple[str, Mapping[str, Any]]


class OrtBackend:
    """One network in one ONNX Runtime session.

    Args:
        model: path of an ONNX file.
        source: what to call the model in messages.
        providers: providers in order of preference, each a name (of `PROVIDERS`, or ONNX Runtime's own) or a name
            with options, e.g. `("tensorrt", {"trt_extra_plugin_lib_paths": "lib.so"})`.
            Default: CUDA where this ONNX Runtime was built with it, else the CPU.
        threads: CPU threads of one run; default: one per physical core, or per CPU where this process may not use all.
        scale: scale of a foreign model.
        value_range: value range of a foreign model.

    Raises:
        ModelLoadError: not a loadable ONNX file, or not one image in and one image out.
        ModelMetadataError: a foreign model without `scale` and `value_range`, or untrue metadata.
        BackendUnavailableError: a provider is not part of this ONNX Runtime.
        ProviderFallbackError: ONNX Runtime gave another provider than was asked for.
    """

    takes_bytes = False

    def __init__(
        self,
        model: Path,
        *,
        source: str,
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        scale: int | None = None,
        value_range: str | None = None,
    ) -> None:
        self._running = threading.Lock()
        self._staged: StagedNetwork | None = None
        wanted = _resolve(providers)
        options = session_options()
        if threads is not None:
            options.intra_op_num_threads = threads
        first, settings = wanted[0]
        chosen: dict[str, Any] = {"providers": wanted}
        self.on_host = first == PROVIDERS["cpu"]
        if first not in ort.get_available_providers():
            plugin = add_plugin(options, first, settings)
            chosen, self.on_host = {}, plugin.device.type == ort.OrtHardwareDeviceType.CPU
        try:
            # By its path: its content would be held beside the weights made of it.
            session = ort.InferenceSession(str(model), options, **chosen)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise ModelLoadError(
                f"{source} cannot be loaded by ONNX Runtime {ort.__version__}: {first_line(error)}. "
                "Export it again with `ignn export`."
            ) from error
        given = session.get_providers()
        if given[0] != first:
            raise ProviderFallbackError(
                f"Asked ONNX Runtime for {first}, got {given[0]}: the provider's libraries could not be loaded. "
                'Repair them, or ask for the CPU: --provider cpu, in Python providers=["cpu"].'
            )
        session.disable_fallback()  # a provider that fails says so, instead of making way for another
        return_freed_memory()  # of the weights as the file had them: they now live in the kernels' own layout
        self._device = int(settings.get("device_id", 0))
        on_cpu = first == PROVIDERS["cpu"]
        self._run_options = run_options() if on_cpu else ort.RunOptions()
        self.description = f"ONNX Runtime {ort.__version__} ({first})"
        try:
            inputs, outputs = session.get_inputs(), session.get_outputs()
            properties = session.get_modelmeta().custom_metadata_map
            signature = read_signature(source, inputs, outputs, ours=Key.FORMAT in properties)
            self._input, self._output = inputs[0].name, outputs[0].name
        except UnicodeDecodeError as error:
            raise ModelLoadError(f"{source} is damaged: its names are not text. Export it again.") from error
        self.metadata: ModelMetadata = read_metadata(properties, source=source, scale=scale, value_range=value_range)
        self._session: ort.InferenceSession | None = session
        self.largest_input = signature.largest_input
        self._foreign: ForeignNetwork | None = None
        if Key.FORMAT not in properties:
            self._foreign = ForeignNetwork(source, signature, self.metadata, self._call)
            self.metadata = self._foreign.metadata
        self.stages = self.metadata.stages if on_cpu else None
        self._model, self._options = model, options

    def run(self, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Backend.run`."""
        if self._foreign is not None:
            return self._foreign.run(self._call, lr)
        n, _, height, width = lr.shape
        if self.stages is not None and not self._is_small(n * height * width, self.stages):
            return np.concatenate([self._run_stages(one[None], Box(0, 0, height, width)) for one in lr])
        sr = self._call(lr)
        n, _, height, width = lr.shape
        expected = (n, 3, self.metadata.scale * height, self.metadata.scale * width)
        if sr.shape != expected:
            raise ModelLoadError(
                f"The model gave shape {sr.shape} for an input of shape {lr.shape}; {expected} was expected of scale "
                f"{self.metadata.scale}. Export it again with `ignn export`."
            )
        return np.asarray(sr, dtype=np.float32)

    def run_kept(self, lr: NDArray[np.float32], kept: Box) -> NDArray[np.float32]:
        """See `Backend.run_kept`."""
        if self.stages is None or self._is_small(lr.shape[2] * lr.shape[3], self.stages):
            return self.run(lr)
        return self._run_stages(lr, kept)

    def _run_stages(self, lr: NDArray[np.float32], kept: Box) -> NDArray[np.float32]:
        _, _, height, width = lr.shape
        with self._errors(lr), self._running:
            if self._session is None:
                raise closed(self.metadata)
            if self._staged is None:
                self._staged = self.open_stages()
            scale = self.metadata.scale
            sr = np.zeros((1, 3, scale * height, scale * width), np.float32)
            self._staged.run(np.ascontiguousarray(lr), kept, sr)
            return sr

    def _is_small(self, pixels: int, stages: StageFacts) -> bool:
        """Return whether a crop runs as one graph: it is faster on small ones, and takes three times the memory."""
        return pixels <= stages.whole_pixels and pixels * self.metadata.bytes_per_pixel < self.free_memory() / 2

    def open_stages(self) -> StagedNetwork:
        """Return the network in stages, which a file with `metadata.stages` has."""

        def make_session(path: str) -> ort.InferenceSession:
            return ort.InferenceSession(path, self._options, providers=[PROVIDERS["cpu"]])

        assert self.stages is not None
        # Threads of one stage must not wait, spinning, while another runs.
        self._options.add_session_config_entry("session.force_spinning_stop", "1")
        staged = StagedNetwork(
            self._model.read_bytes(), self.stages, self.metadata.scale, make_session, self._run_options
        )
        return_freed_memory()
        return staged

    def _call(self, lr: NDArray[Any]) -> NDArray[Any]:
        """Run the network itself."""
        with self._errors(lr), self._running:  # it uses all cores, or the whole device
            if self._session is None:
                raise closed(self.metadata)
            (sr,) = self._session.run([self._output], {self._input: np.ascontiguousarray(lr)}, self._run_options)
            return np.asarray(sr)

    @contextmanager
    def _errors(self, lr: NDArray[np.float32]) -> Iterator[None]:
        """Raise what a run may raise as errors of ours."""
        try:
            yield
        except IgnnError:
            raise
        except MemoryError as error:
            raise BackendMemoryError(str(error)) from error
        except Exception as error:
            if says_no_memory(error):
                raise BackendMemoryError(first_line(error)) from error
            raise IgnnError(
                f"{self.description} failed on an input of shape {lr.shape}: {first_line(error)}"
            ) from error

    def run_all(self, inputs: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """See `Backend.run_all`."""
        return map(self.run, inputs)

    def cancel(self) -> None:
        """See `Backend.cancel`."""
        self._run_options.terminate = True  # looked at before each node
        if self._staged is not None:
            self._staged.cancel()

    def free_memory(self) -> int:
        """See `Backend.free_memory`."""
        return free_host_memory() if self.on_host else free_device_memory(self._device)

    def close(self) -> None:
        """See `Backend.close`."""
        with self._running:
            self._session = self._staged = None
        return_freed_memory()


def available_providers() -> list[str]:
    """Return our short names of the providers that this ONNX Runtime has, or has a plugin installed for."""
    available = ort.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in available or is_installed(full)]


def session_options() -> ort.SessionOptions:
    """Return the options that every session is opened with."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters is raised as an error
    # Tensors that take over a dead one's buffer, and one block planned for all of them, hold more for longer.
    options.enable_mem_reuse = options.enable_mem_pattern = False
    options.intra_op_num_threads = _permitted_cpus() or 0  # 0: ONNX Runtime's own choice
    return options


def run_options() -> ort.RunOptions:
    """Return the options of a run on the CPU, which give memory back after it.

    The arena would keep the peak of every shape it has seen.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _permitted_cpus() -> int | None:
    """Return how many CPUs this process may use; None if it may use all of the machine's.

    ONNX Runtime's own default knows nothing of taskset or a container's cpuset: it starts a thread for each core of the
    machine and pins it there.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return None
    permitted = len(os.sched_getaffinity(0))
    return permitted if permitted < (os.cpu_count() or permitted) else None


def _resolve(providers: Sequence[Provider] | None) -> list[tuple[str, dict[str, Any]]]:
    """Return ONNX Runtime's names and options of the providers asked for, after checking that each is there."""
    available = ort.get_available_providers()
    if providers is None:
        providers = ["cuda"] if PROVIDERS["cuda"] in available else ["cpu"]
    if isinstance(providers, str) or not providers:
        raise UsageError(f"Invalid providers ({providers!r}). A list is expected, such as ['cpu'] or ['cuda'].")
    resolved: list[tuple[str, dict[str, Any]]] = []
    for provider in providers:
        name, options = (provider, {}) if isinstance(provider, str) else provider
        full = PROVIDERS.get(name, name)
        if full not in PROVIDERS.values():
            raise UsageError(f"Invalid provider ({name!r}). Supported values are {', '.join(PROVIDERS)}.")
        if full not in available and has_plugin(full):
            if resolved or any(PROVIDERS.get(str(rest), rest) != PROVIDERS["cpu"] for rest in providers[1:]):
                raise UsageError(f"{name!r} is a plugin of ONNX Runtime, and goes alone. Leave out other providers.")
        elif full not in available:
            raise BackendUnavailableError(
                f"ONNX Runtime {ort.__version__} here has no {full} (it has {', '.join(available)}). "
                f"For an NVIDIA GPU: pip uninstall onnxruntime && {install_command('gpu')}. Or ask for --provider cpu."
            )
        resolved.append((full, dict(options)))
    return resolved
