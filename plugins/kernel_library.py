"""The kernels' C interface (plugins/kernels/*/*.h) by ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Literal, Self

Type = Literal["float32", "float16"]
Layout = Literal["linear", "channels_last"]
_TYPES = {"float32": 0, "float16": 1}
_LAYOUTS = {"linear": 0, "channels_last": 1}


class WindowedKnnSizes(ctypes.Structure):
    """IgnnWindowedKnn of windowed_knn.h."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ("batch", "channels", "height", "width", "k", "window", "scale", "type", "layout")
    ]

    @classmethod
    def of(
        cls, shape: tuple[int, ...], type_: Type, layout: Layout, *, k: int, window: int, scale: int
    ) -> WindowedKnnSizes:
        """Describe a call for a query map of shape (N, E, H, W)."""
        return cls(*shape, k, window, scale, _TYPES[type_], _LAYOUTS[layout])


class FeaturesSizes(ctypes.Structure):
    """IgnnFeatures of interface.h."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("batch", "channels", "height", "width", "scale")),
        ("eps", ctypes.c_float),
        ("type", ctypes.c_int),
        ("layout", ctypes.c_int),
    ]

    @classmethod
    def of(cls, shape: tuple[int, ...], type_: Type, layout: Layout, *, scale: int, eps: float) -> Self:
        """Describe a call for features of shape (N, C, H, W)."""
        return cls(*shape, scale, eps, _TYPES[type_], _LAYOUTS[layout])


class KeyStatisticsSizes(FeaturesSizes):
    """What ignn_key_statistics is called with."""


class AdaPNGatherSizes(FeaturesSizes):
    """What ignn_adapn_gather is called with."""


Sizes = WindowedKnnSizes | KeyStatisticsSizes | AdaPNGatherSizes
_OPERATORS: dict[type[Sizes], tuple[str, int]] = {
    WindowedKnnSizes: ("windowed_knn", 4),
    KeyStatisticsSizes: ("key_statistics", 3),
    AdaPNGatherSizes: ("adapn_gather", 5),
}
"""Name of the functions in C, and how many tensors they take."""


class KernelLibrary:
    """A loaded library of the three kernels. Tensors are passed as device addresses, 16-byte aligned."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        for sizes, (name, tensors) in _OPERATORS.items():
            refusal = getattr(self.library, f"ignn_{name}_refusal")
            refusal.argtypes, refusal.restype = [ctypes.POINTER(sizes)], ctypes.c_char_p
            launch = getattr(self.library, f"ignn_{name}")
            addresses = tensors + (2 if sizes is WindowedKnnSizes else 1)  # the workspace, the stream
            launch.argtypes, launch.restype = [ctypes.POINTER(sizes), *[ctypes.c_void_p] * addresses], ctypes.c_int
        workspace = self.library.ignn_windowed_knn_workspace
        workspace.argtypes, workspace.restype = [ctypes.POINTER(WindowedKnnSizes)], ctypes.c_size_t

    def refusal(self, sizes: Sizes) -> str | None:
        """Return why the kernel does not take these sizes, or None."""
        message = getattr(self.library, f"ignn_{_name(sizes)}_refusal")(ctypes.byref(sizes))
        return None if message is None else message.decode()

    def workspace_bytes(self, sizes: Sizes) -> int:
        """Return the bytes of workspace that `launch` needs; only WindowedKnn needs any."""
        if not isinstance(sizes, WindowedKnnSizes):
            return 0
        return self.library.ignn_windowed_knn_workspace(ctypes.byref(sizes))

    def launch(self, sizes: Sizes, *tensors: int, workspace: int, stream: int) -> None:
        """Queue the operator on a CUDA stream; `tensors` are the addresses of its inputs, then of its outputs.

        Raises:
            RuntimeError: if CUDA reports an error.
        """
        addresses = [*tensors, workspace] if isinstance(sizes, WindowedKnnSizes) else tensors
        error = getattr(self.library, f"ignn_{_name(sizes)}")(ctypes.byref(sizes), *addresses, stream)
        if error != 0:
            raise RuntimeError(f"The CUDA kernel of {_name(sizes)} could not be launched: CUDA error {error}.")


def _name(sizes: Sizes) -> str:
    return _OPERATORS[type(sizes)][0]
