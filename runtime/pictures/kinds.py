"""The kinds of image that a call takes, in Python; the result is of the same kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ImageReadError, InvalidImageError
from .picture import Picture, from_array, from_pil, to_array, to_pil
from .read import only_frame, read_bytes, read_still

ACCEPTED = "a path, the bytes of an image file, a file opened in binary mode, a PIL image, or a NumPy array"


def picture_of(image: Any, *, max_pixels: int | None) -> Picture:  # noqa: ANN401 - what a call takes
    """Return the picture of an image of any kind that is accepted.

    Raises:
        ImageReadError, ImageTooLargeError: the file cannot be read.
        InvalidImageError: something else, or wrong shape, type or values.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_still(Path(image), max_pixels=max_pixels)
    if isinstance(image, np.ndarray):
        if isinstance(image, np.ma.MaskedArray):
            raise InvalidImageError("Invalid image: a masked array. Fill it: image.filled(0).")
        return from_array(np.asarray(image))  # np.matrix would stay of two dimensions, whatever is asked of it
    if isinstance(image, Image.Image):
        return from_pil(image)
    data = file_content(image)
    return only_frame(read_bytes(data, max_pixels=max_pixels), "The picture")


def as_kind(picture: Picture, image: Any) -> Any:  # noqa: ANN401 - the kind that `image` is of
    """Return a picture as an array if `image` is one, else as a PIL image."""
    return to_array(picture, like=np.asarray(image)) if isinstance(image, np.ndarray) else to_pil(picture)


def file_content(image: Any) -> bytes:  # noqa: ANN401 - what a call takes
    """Return the content of an image file that is given as bytes, or as a file opened in binary mode.

    Raises:
        ImageReadError: the file cannot be read.
        InvalidImageError: it is neither.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if callable(read := getattr(image, "read", None)):
        try:
            data = read()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise ImageReadError(f"The open file cannot be read ({error}). Open it again.") from error
        if isinstance(data, bytes):
            return data
        raise InvalidImageError("Invalid image: a file opened as text. Open it in binary mode: open(path, 'rb').")
    if isinstance(image, (list, tuple)):
        raise InvalidImageError(
            f"Invalid image: a {type(image).__name__} of {len(image)}. One image is enlarged by a call: {ACCEPTED}; "
            "several by resolver.map(images). Rows of numbers: np.asarray(rows, np.uint8)."
        )
    raise InvalidImageError(f"Invalid image ({image!r:.60}, of type {type(image).__name__}). Accepted are {ACCEPTED}.")
