"""`RemoteResolver`: what `SuperResolver` does, done by a server of `ignn serve`."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, overload
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..clone import install_command
from ..errors import BackendUnavailableError, ImageReadError, InvalidImageError, ServerError, UsageError
from ..models import find_model
from ..pictures.kinds import file_content
from ..pictures.picture import from_pil, to_pil
from ..pictures.read import ImageFile, only_frame, read_bytes
from ..pictures.write import write_bytes

Array = TypeVar("Array", bound=NDArray[Any])
PathLike = str | os.PathLike[str]

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 5.0
"""Waits between attempts double from the first to the longest; each is drawn between zero and that."""

MAX_MESSAGE_BYTES = 2**31 - 1
"""gRPC's own limit would be 4 MB a message."""

_TRANSIENT = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


class RemoteResolver:
    """Enlarges images on a server of `ignn serve`, with the call and the `map` of `SuperResolver`.

    May be called from many threads. A server that is full, is started again or does not answer in time is asked again,
    after growing waits; input that it refuses is not sent twice.

    Args:
        url: `grpc://host:port`, or `grpcs://host:port` for TLS.
        model: the network's name on the server; `None`: that of the default model, which `ignn models` names first.
        in_flight: most requests at a time, of all threads together.
        deadline_seconds: how long one attempt may take.
        patience_seconds: how long to go on asking a server that does not answer.

    Raises:
        UsageError: an argument has a value that is not accepted.
        BackendUnavailableError: tritonclient is not installed.
        ServerError: the server does not answer, or has no such model.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        in_flight: int = 4,
        deadline_seconds: float = 300,
        patience_seconds: float = 120,
    ) -> None:
        if not isinstance(in_flight, int) or in_flight < 1:
            raise UsageError(f"Invalid in_flight ({in_flight!r}). Whole numbers from 1 are supported.")
        for name, value in (("deadline_seconds", deadline_seconds), ("patience_seconds", patience_seconds)):
            if not value > 0:
                raise UsageError(f"Invalid {name} ({value!r}). Numbers above 0 are supported.")
        self._url, self._model = url, find_model(None).name if model is None else model
        self._deadline, self._patience = deadline_seconds, patience_seconds
        self._grpc, self._client = _connect(url)
        self._ended = threading.Event()
        self._in_flight = in_flight
        self._threads = ThreadPoolExecutor(in_flight, "ignn-remote")
        self._config = {}
        try:
            self._config = self._asked(self._read_config)
        except BaseException:
            self.close()
            raise

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return int(self._config["scale"])

    @property
    def settings(self) -> str:
        """Everything but the input that decides a result's values, as one string."""
        return f"{self._config['fingerprint']} {self._model} of a server, on {self._config['device']}"

    @property
    def in_flight(self) -> int:
        """Most requests at a time."""
        return self._in_flight

    @overload
    def __call__(self, image: PathLike | bytes | BinaryIO) -> Image.Image: ...
    @overload
    def __call__(self, image: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, image: Array) -> Array: ...
    def __call__(self, image: Any) -> Any:
        """Enlarge an image; takes and returns what `SuperResolver` does, of the same values.

        Raises:
            ImageReadError: there is no such file.
            InvalidImageError: the server refused the image; the message is its own.
            ServerError: the server did not answer for `patience_seconds`, or failed.
        """
        return self._submit(image).result()

    def map(self, images: Iterable[Any]) -> Iterator[Any]:
        """Enlarge a stream of images, each of any kind that a call takes; yields results in order.

        Images are taken from the iterable as requests end, at most `in_flight` ahead. An image that fails raises from
        `next()` in its place; the next `next()` goes on with the image after it.
        """
        return _Results(self, iter(images))

    def upscale_bytes(
        self,
        data: bytes,
        *,
        format: str | None = None,
        quality: int | None = None,
        lossless: bool = False,
        background: str | None = None,
    ) -> bytes:
        """Enlarge the content of an image file; ICC profile, alpha and EXIF block are kept.

        Args:
            data: the file's content.
            format: format of the result, such as `png`; None: the input's own, or png if that is not written.
            quality: 1 to 100, of JPEG, WebP and AVIF.
            lossless: lossless WebP.
            background: color that replaces transparency.

        Raises:
            InvalidImageError, ServerError: as a call does.
        """
        fields = {"format": format, "quality": quality, "lossless": lossless, "background": background}
        return self._threads.submit(self._infer, data, {key: value for key, value in fields.items() if value}).result()

    def close(self) -> None:
        """End the connection, after the requests under way; waits between attempts end at once."""
        self._ended.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def __enter__(self) -> RemoteResolver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, image: Any) -> Future[Any]:  # noqa: ANN401 - what a call takes
        # The caller may fill its array again when it is asked for the next image.
        return self._threads.submit(self._enlarge, image.copy() if isinstance(image, np.ndarray) else image)

    def _enlarge(self, image: Any) -> Any:  # noqa: ANN401 - what a call takes
        from .model import array_of, bytes_of

        if isinstance(image, np.ndarray):
            return array_of(self._infer(bytes_of(np.asarray(image)), {}), max_pixels=1 << 62)
        if isinstance(image, (str, os.PathLike)):
            data = read_path(Path(image))
        elif isinstance(image, Image.Image):
            data = write_bytes(ImageFile([from_pil(image)], []), ".png")
        else:
            data = file_content(image)
        content = read_bytes(self._infer(data, {"format": "png"}), max_pixels=1 << 62)
        return to_pil(only_frame(content, "The picture"))

    def _infer(self, data: bytes, options: dict[str, Any]) -> bytes:
        """Send a file to the file model; return the enlarged file."""

        def attempt() -> bytes:
            inputs = [self._tensor("file", data)]
            if options:
                inputs.append(self._tensor("options", json.dumps(options).encode()))
            result = self._client.infer(f"{self._model}-file", inputs, client_timeout=self._deadline)
            enlarged = result.as_numpy("enlarged")
            if enlarged is None or enlarged.size != 1 or not enlarged.reshape(-1)[0]:
                raise ServerError(f"{self._url} gave an empty result. It may run NumPy 2 on Triton up to 24.10.")
            return enlarged.reshape(-1)[0]

        return self._asked(attempt)

    def _tensor(self, name: str, data: bytes) -> Any:  # noqa: ANN401 - tritonclient has no types
        tensor = self._grpc.InferInput(name, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[data]], np.object_))
        return tensor

    def _read_config(self) -> dict[str, str]:
        config = self._client.get_model_config(
            f"{self._model}-file", as_json=True, client_timeout=min(self._deadline, 10)
        )["config"]
        parameters = config.get("parameters", {})
        if "scale" not in parameters:
            raise ServerError(f"{self._url} has a model {self._model}-file that `ignn serve` did not make.")
        return {key: value.get("string_value", "") for key, value in parameters.items()}

    def _asked(self, attempt: Any) -> Any:  # noqa: ANN401 - what `attempt` returns
        """Return what the attempt does; ask again, after growing waits, where that may help."""
        start, longest = time.monotonic(), FIRST_WAIT_SECONDS
        while True:
            try:
                return attempt()
            except self._grpc.InferenceServerException as error:
                status = str(error.status()).removeprefix("StatusCode.")
                message = str(error.message())
                if status == "INVALID_ARGUMENT":
                    raise InvalidImageError(message) from error
                if not is_transient(status, message):
                    raise ServerError(f"{self._url}: {message} ({status})") from error
                wait = random.uniform(0, longest)
                if time.monotonic() + wait - start > self._patience or self._ended.wait(wait):
                    raise ServerError(
                        f"{self._url} did not answer for {time.monotonic() - start:.0f} s: {message} ({status}). "
                        "Look at it with: ignn probe http://HOST:8000"
                    ) from error
                longest = min(2 * longest, LONGEST_WAIT_SECONDS)


class _Results(Iterator[Any]):
    """Results in the images' order; at most as many requests wait as may be in flight."""

    def __init__(self, resolver: RemoteResolver, images: Iterator[Any]) -> None:
        self._resolver, self._images = resolver, images
        self._waiting: deque[Future[Any]] = deque()
        self._exhausted = False

    def __iter__(self) -> _Results:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - an image of the kind that went in
        while not self._exhausted and len(self._waiting) < self._resolver.in_flight:
            try:
                self._waiting.append(self._resolver._submit(next(self._images)))
            except StopIteration:
                self._exhausted = True
            except Exception as error:  # the caller's iterator failed: its error belongs to this place
                self._exhausted = True
                failed: Future[Any] = Future()
                failed.set_exception(error)
                self._waiting.append(failed)
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft().result()


def is_transient(status: str, message: str) -> bool:
    """Return whether to ask again after that answer, `status` being gRPC's."""
    # A stub that was killed; `ignn probe --recover` loads its model again.
    return status in _TRANSIENT or (status == "INTERNAL" and "not healthy" in message)


def read_path(path: Path) -> bytes:
    """Read a file.

    Raises:
        ImageReadError: it is not there, or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path} cannot be read: {error.strerror or error}.") from error


def _connect(url: str) -> tuple[Any, Any]:
    """Return tritonclient's gRPC module, and a client of it."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or port is None or parts.path.strip("/"):
        raise UsageError(f"Invalid server ({url!r}). grpc://host:port is expected, such as grpc://127.0.0.1:8001.")
    try:
        import tritonclient.grpc as module
    except ImportError as error:
        raise BackendUnavailableError(
            f"tritonclient cannot be imported ({error}). Install it with: {install_command('client')}"
        ) from error
    options = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 200),  # a server that is started again is found within a second
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    return module, module.InferenceServerClient(parts.netloc, ssl=parts.scheme == "grpcs", channel_args=options)
