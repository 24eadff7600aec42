"""What Triton's python backend runs: arrays or files through a `SuperResolver`. Bad input fails its own request alone.

Triton makes one object of each class in a process of its own (`initialize`), and hands it lists of requests
(`execute`). Its module `triton_python_backend_utils` exists in that process only.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.memory import hold_no_freed_memory
from ..errors import IgnnError, ImageReadError, ImageTooLargeError, InvalidImageError, UsageError
from ..pictures.read import read_bytes
from ..pictures.write import WriteOptions, check_held, format_of, suffix_of_format, write_bytes
from ..super_resolver import SuperResolver
from .metrics import Stopwatch

ARRAY_MAGIC = b"\x93NUMPY"
"""How a file begins that holds an array (.npy)."""

OPTIONS = {"format", "quality", "lossless", "background"}
"""Fields of a file model's `options`."""


class ArrayModel:
    """`lr` uint8 (N, H, W, 3) -> `sr` uint8 (N, scale * H, scale * W, 3)."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network that the configuration names."""
        self._served = _Served(args)

    def finalize(self) -> None:
        """Free the network's memory: Triton unloads the model."""
        self._served.resolver.close()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Enlarge the arrays of some requests; return a response for each."""
        utils, served = self._served.utils, self._served
        arrays = [utils.get_input_tensor_by_name(request, "lr").as_numpy() for request in requests]
        errors: list[Exception | None] = [_too_large(array.shape[-3:-1], served.max_pixels) for array in arrays]
        images = [image for array, error in zip(arrays, errors, strict=True) if error is None for image in array]
        responses = []
        with served.stage("network"), served.resolver.map(images, batch=served.batch) as results:
            for array, error in zip(arrays, errors, strict=True):
                large = []
                for _ in range(len(array) if error is None else 0):
                    try:
                        large.append(next(results))
                    except Exception as raised:  # the other images of this request are still to be fetched
                        error = error or raised
                if error is None:
                    served.count(images=len(array), pixels=sum(sr.shape[0] * sr.shape[1] for sr in large))
                    responses.append(utils.InferenceResponse([utils.Tensor("sr", np.stack(large))]))
                else:
                    responses.append(served.failure(error))
        return responses


class FileModel:
    """`file` -> `enlarged`: the bytes of a picture in and out, with its ICC profile, alpha and EXIF block.

    `options` is JSON: `format` (a suffix without its dot; else the input's own, or png), `quality`, `lossless`,
    `background`. A file in NumPy's format (.npy) holds an array that `SuperResolver` takes, and comes back as one.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network that the configuration names."""
        self._served = _Served(args)

    def finalize(self) -> None:
        """Free the network's memory: Triton unloads the model."""
        self._served.resolver.close()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Enlarge the files of some requests; return a response for each."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:  # noqa: ANN401 - Triton's types have no stubs
        utils = self._served.utils
        try:
            data = utils.get_input_tensor_by_name(request, "file").as_numpy().reshape(-1)[0]
            tensor = utils.get_input_tensor_by_name(request, "options")
            options = parse_options(b"" if tensor is None else tensor.as_numpy().reshape(-1)[0])
            enlarged = self._enlarge(data, *options)
        except Exception as error:
            return self._served.failure(error)
        return utils.InferenceResponse([utils.Tensor("enlarged", np.array([[enlarged]], np.object_))])

    def _enlarge(self, data: bytes, suffix: str | None, options: WriteOptions) -> bytes:
        served = self._served
        if len(data) > served.max_bytes:
            raise ImageTooLargeError(
                f"The file has {len(data):,} bytes; the server's limit is {served.max_bytes:,} (--max-bytes)."
            )
        if data.startswith(ARRAY_MAGIC):
            array = array_of(data, max_pixels=served.max_pixels)
            with served.stage("network"):
                large = served.resolver(array)
            served.count(images=1, pixels=large.shape[0] * large.shape[1])
            return bytes_of(large)
        if suffix is not None:
            format_of(Path(f"the result{suffix}"))  # before the work, not after it
        watch = Stopwatch()
        with served.stage("decode"):
            small = read_bytes(data, max_pixels=served.max_pixels)
        written = format_of(Path(f"the result{suffix or suffix_of_format(small.format)}"))
        check_held(small, written, "the result", options, scale=served.resolver.scale)
        with served.stage("network"):
            content = served.resolver.upscale_file(small, tile_done=watch.tile_done)
        with served.stage("encode"):
            result = write_bytes(content, suffix or suffix_of_format(small.format), options)
        sizes = [frame.color.shape[:2] for frame in content.frames]
        served.count(images=1, pixels=sum(height * width for height, width in sizes), tiles=watch.tiles)
        return result


class _Served:
    """A network as the configuration describes it, its limits, and its metrics."""

    def __init__(self, args: dict[str, str]) -> None:
        import triton_python_backend_utils  # of the server's own process

        hold_no_freed_memory()
        self.utils: Any = triton_python_backend_utils
        texts = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        self.max_pixels, self.max_bytes = int(texts["max_pixels"]), int(texts["max_bytes"])
        model = texts["model"]
        if model.endswith(".onnx"):
            model = str(Path(args["model_repository"]) / args["model_version"] / model)
        cuda = texts["device"] == "cuda"
        self.batch = 8 if cuda else 1
        self.resolver = SuperResolver(
            model,
            providers=[("cuda", {"device_id": args["model_instance_device_id"]})] if cuda else ["cpu"],
            threads=int(texts["threads"]) if texts["threads"] else None,
            tile="auto",
        )
        families = {
            "ignn_images_total": "Pictures enlarged",
            "ignn_output_pixels_total": "Pixels of enlarged pictures",
            "ignn_tiles_total": "Tiles that the network ran on, of files",
            "ignn_stage_seconds_total": "Time in decoding, the network, and encoding",
            "ignn_errors_total": "Requests that failed, by kind",
        }
        self._families = {
            name: self.utils.MetricFamily(name=name, description=text, kind=self.utils.MetricFamily.COUNTER)
            for name, text in families.items()
        }
        self._metrics: dict[tuple[str, str], Any] = {}
        self._name = args["model_name"]

    def failure(self, error: Exception) -> Any:  # noqa: ANN401 - Triton's types have no stubs
        """Return the response to a request that failed."""
        kind = type(error).__name__
        self._add("ignn_errors_total", 1, kind=kind)
        ours = isinstance(error, (ImageReadError, ImageTooLargeError, InvalidImageError, UsageError))
        # ImageWriteError: a format that cannot hold the result was asked for. There is no disk here.
        code = "INVALID_ARG" if ours or kind == "ImageWriteError" else "INTERNAL"
        text = str(error) if isinstance(error, IgnnError) else f"{kind}: {error}"
        return self.utils.InferenceResponse(
            output_tensors=[], error=self.utils.TritonError(text, getattr(self.utils.TritonError, code))
        )

    def count(self, *, images: int, pixels: int, tiles: int = 0) -> None:
        """Count pictures, the pixels of their results, and their tiles where they are known."""
        self._add("ignn_images_total", images)
        self._add("ignn_output_pixels_total", pixels)
        if tiles:
            self._add("ignn_tiles_total", tiles)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._add("ignn_stage_seconds_total", time.perf_counter() - start, stage=name)

    def _add(self, family: str, amount: float, **labels: str) -> None:
        key = (family, "".join(labels.values()))
        if key not in self._metrics:
            self._metrics[key] = self._families[family].Metric(labels={"model": self._name, **labels})
        self._metrics[key].increment(amount)


def parse_options(text: bytes) -> tuple[str | None, WriteOptions]:
    """Return the suffix of the output's format, or None, and how to write it.

    Raises:
        UsageError: not JSON, an unknown field, or a value that is not accepted.
    """
    try:
        fields = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise UsageError(f"Invalid options: not JSON ({error}).") from error
    if not isinstance(fields, dict) or set(fields) - OPTIONS:
        raise UsageError(f"Invalid options ({fields!r}). Supported fields are {', '.join(sorted(OPTIONS))}.")
    expected = {"format": str, "quality": int, "lossless": bool, "background": str}
    for name, value in fields.items():
        if value is not None and type(value) is not expected[name]:
            raise UsageError(
                f"Invalid option {name} ({value!r}). A value of type {expected[name].__name__} is expected."
            )
    options = WriteOptions(fields.get("quality"), bool(fields.get("lossless")), fields.get("background"))
    return (f".{fields['format']}" if fields.get("format") else None), options


def array_of(data: bytes, *, max_pixels: int) -> NDArray[Any]:
    """Read an array in NumPy's format, without trusting its header.

    Raises:
        ImageReadError: damaged or truncated.
        ImageTooLargeError: more than `max_pixels` pixels.
        InvalidImageError: not an array of numbers.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # of whatever a damaged header makes NumPy stumble over
        raise ImageReadError(f"The array is damaged ({error}). Write it with numpy.save.") from error
    if dtype.kind not in "uif" or len(shape) not in (2, 3) or min(shape) < 1:
        raise InvalidImageError(f"Invalid array: {dtype} of shape {shape}. A grey, RGB or RGBA picture is expected.")
    if too_large := _too_large(shape[:2], max_pixels):
        raise too_large
    values = data[file.tell() :]
    if len(values) != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ImageReadError(f"The array is truncated: {len(values)} bytes for {shape} of {dtype}.")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")


def bytes_of(array: NDArray[Any]) -> bytes:
    """Return the array in NumPy's format."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _too_large(size: tuple[int, ...], max_pixels: int) -> ImageTooLargeError | None:
    height, width = size
    if height * width <= max_pixels:
        return None
    return ImageTooLargeError(
        f"The picture has {width} x {height} = {height * width:,} pixels; the server's limit is {max_pixels:,} "
        "(--max-pixels)."
    )
