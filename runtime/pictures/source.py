"""Where an image file lies, and its header, opened within the limit of pixels."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.ImageFile import ImageFile as ImageFileType

from ..errors import ImageTooLargeError

_limit_lock = threading.Lock()


@dataclass(frozen=True)
class Source:
    """Where an image file lies.

    Attributes:
        name: what errors call it.
        file: its path, or its bytes.
        max_pixels: largest picture that is decoded, of all frames together; None: twice Pillow's `MAX_IMAGE_PIXELS`.
    """

    name: str
    file: Path | bytes
    max_pixels: int | None = None

    @property
    def limit(self) -> int | None:
        """The most pixels, or None."""
        if self.max_pixels is not None or Image.MAX_IMAGE_PIXELS is None:
            return self.max_pixels
        return 2 * Image.MAX_IMAGE_PIXELS

    @property
    def suffix(self) -> str:
        """The suffix of its path, in small letters; empty for bytes."""
        return "" if isinstance(self.file, bytes) else self.file.suffix.lower()

    def stream(self) -> BinaryIO:
        """Open the file itself."""
        return io.BytesIO(self.file) if isinstance(self.file, bytes) else self.file.open("rb")

    def content(self) -> bytes:
        """Return the whole file."""
        return self.file if isinstance(self.file, bytes) else self.file.read_bytes()

    def check(self, what: str, pixels: int) -> None:
        """Raise unless so many pixels are within the limit.

        Args:
            what: which pixels, in front of their number: "12 x 10 = ".
            pixels: how many.

        Raises:
            ImageTooLargeError: too many.
        """
        if self.limit is not None and pixels > self.limit:
            raise ImageTooLargeError(
                f"{self.name} has {what}{pixels:,} pixels; the limit is {self.limit:,}. "
                f"If you trust it, give --max-pixels {pixels} (in Python max_pixels={pixels})."
            )

    @contextmanager
    def opened(self) -> Iterator[ImageFileType]:
        """Read the header by Pillow, and check its size."""
        with self._header() as image:
            self.check(f"{image.width} x {image.height} = ", image.width * image.height)
            yield image

    def _header(self) -> ImageFileType:
        file = io.BytesIO(self.file) if isinstance(self.file, bytes) else self.file
        formats = _formats()
        pillow, limit = Image.MAX_IMAGE_PIXELS, self.limit
        if limit is None or pillow is None or limit <= 2 * pillow:
            return Image.open(file, formats=formats)
        # Pillow's limit is global to the process: lift it for this header only, and only if a larger one was asked for.
        with _limit_lock:
            Image.MAX_IMAGE_PIXELS = limit
            try:
                return Image.open(file, formats=formats)
            finally:
                Image.MAX_IMAGE_PIXELS = pillow


def _formats() -> list[str]:
    """Return Pillow's formats in the order to try them: TGA, which takes some files of others for its own, last.

    Pillow itself tries them as their plugins were loaded, so that a file reads well or not by what was read before.
    """
    Image.init()
    return sorted(Image.ID, key=lambda name: name == "TGA")
