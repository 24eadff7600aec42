"""Named errors. Each docstring says how to get past it; each message names the value and the next thing to type."""

from __future__ import annotations

import traceback
from pathlib import Path


class IgnnError(Exception):
    """Base of every error that this project raises on purpose: catch this one in an application."""


class ModelNotFoundError(IgnnError):
    """There is no such model file or bundled name. `ignn models` lists the bundled ones; a path must end in `.onnx`."""


class ModelChecksumError(IgnnError):
    """A bundled model is not the file that was published. The message says how to get it back."""


class ModelLoadError(IgnnError):
    """The file is not a model that ONNX Runtime can load. Export it again, or download it again."""


class ModelMetadataError(IgnnError):
    """The model does not say what the runtime must know. For a foreign model give its scale and its value range:
    `SuperResolver(path, scale=2, value_range="0..1")`, or `--scale 2 --value-range 0..1`."""


class BackendUnavailableError(IgnnError):
    """The backend or provider is not installed here. Install the extra that the message names, or ask for another."""


class ProviderFallbackError(IgnnError):
    """ONNX Runtime loaded, but not with the provider that was asked for. Repair the provider's libraries (the message
    of ONNX Runtime just above says which), or ask for `providers=["cpu"]`."""


class ImageReadError(IgnnError):
    """The file is missing, empty, truncated or not an image. Replace it."""


class ImageTooLargeError(IgnnError):
    """The image has more pixels than the limit that guards against decompression bombs. If you trust the file, raise
    the limit: `max_pixels=...` or `--max-pixels N`."""


class InvalidImageError(IgnnError, ValueError):
    """The image in memory has a shape, type or values that mean nothing here. Convert it as the message says."""


class WriteError(IgnnError):
    """A file could not be written: no room, no permission. The message says which; make room, or give another path."""


class ImageWriteError(WriteError):
    """The result could not be written, or the output's format cannot hold it. Choose another path or suffix."""


class DeviceMemoryError(IgnnError):
    """Memory ran out even with the smallest tile. Free memory, or use a smaller model or `providers=["cpu"]`."""


class NonFiniteOutputError(IgnnError):
    """The network gave NaN or infinity. Use the model's fp32 file, and report it with the image."""


class UsageError(IgnnError, ValueError):
    """An option has a value that is not accepted. The message lists those that are."""


class ClosedError(IgnnError):
    """The resolver was closed: its `with` block has ended, or `close()` was called. Make another."""


class EngineBuildError(IgnnError):
    """TensorRT could not build the engine; nothing was written. The message holds what TensorRT or the plugin said."""


class EngineError(IgnnError):
    """An engine cannot be used here: damaged, of another GPU or TensorRT, or made for other sizes. Build it again with
    `ignn build`."""


class ClusterError(IgnnError):
    """A cluster cannot be reached, has no room, or could not open the network. The message holds what it said."""


class StorageError(IgnnError):
    """A folder or an object store cannot be read or written. The message holds what it said."""


class ServerError(IgnnError):
    """A server did not start, or did not answer as it should. The message holds what it said, and what to do."""


def explain(error: BaseException) -> str:
    """Return what a command says of an error: of one that is not ours, that it is a defect, and where it came from."""
    if isinstance(error, MemoryError):
        return "it does not fit in memory. Use --stream, or free memory."
    if isinstance(error, (IgnnError, OSError)):
        return str(error)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    return (
        f"this is a defect of ignn ({type(error).__name__}: {error}). Please report it with the file. "
        f"[{' '.join(reversed(places))}]"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of what a library's error says, for a message of ours."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
