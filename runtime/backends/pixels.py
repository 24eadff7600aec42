"""The kernels that let 8-bit pictures cross the bus as bytes (plugins/kernels/pixels/pixels.h), by ctypes."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

from ..errors import BackendUnavailableError, IgnnError
from .plugin_library import build_command, check_plugin

logger = logging.getLogger("ignn")


class PixelKernels:
    """The two conversions. Addresses are the device's; sizes are (N, H, W) of what is converted.

    Args:
        library: the plugin library, or another that holds the kernels.
        unit: what white, 255, is divided by for the network: 1 or 255.

    Raises:
        OSError: it cannot be loaded.
        AttributeError: it holds no such kernels.
    """

    def __init__(self, library: Path, *, unit: float) -> None:
        self._unit = unit
        loaded = ctypes.CDLL(str(library))
        self._to_map, self._to_pixels = loaded.ignn_pixels_to_map, loaded.ignn_map_to_pixels
        for function in (self._to_map, self._to_pixels):
            function.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int] * 3, ctypes.c_float, ctypes.c_void_p]
            function.restype = ctypes.c_int

    def to_map(self, pixels: int, values: int, size: tuple[int, int, int], stream: int) -> None:
        """Queue (N, H, W, 3) uint8 -> (N, 3, H, W) float32 of the network's range.

        Raises:
            IgnnError: CUDA reports an error.
        """
        self._check(self._to_map(pixels, values, *size, self._unit, stream))

    def to_pixels(self, values: int, pixels: int, size: tuple[int, int, int], stream: int) -> None:
        """Queue (N, 3, H, W) float32 -> (N, H, W, 3) uint8, rounded and clamped, and a byte behind it that is 1 where a
        value was NaN or infinite.

        Raises:
            IgnnError: CUDA reports an error.
        """
        self._check(self._to_pixels(values, pixels, *size, self._unit, stream))

    def _check(self, error: int) -> None:
        if error != 0:
            raise IgnnError(
                f"A kernel of the plugin library could not be launched: CUDA error {error}. If the library was built "
                f"for other GPUs, build it again: {build_command()}"
            )


def find_pixel_kernels(unit: float) -> PixelKernels | None:
    """Open the kernels of the plugin library; None, with a warning, where it is not at hand: floats are copied then."""
    try:
        return PixelKernels(check_plugin(None), unit=unit)
    except BackendUnavailableError as error:
        reason = str(error)
    except (OSError, AttributeError) as error:
        reason = f"The plugin library cannot be used ({error}). Build it again: {build_command()}"
    logger.warning("8-bit pictures go to the GPU as floats, four times the bytes. %s", reason)
    return None
