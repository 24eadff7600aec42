"""Pictures larger than memory: read by libvips row by row, written band by band as PNG or TIFF."""

from __future__ import annotations

import logging
import math
import sys
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_path
from ..backends import Values
from ..clone import install_command
from ..errors import BackendUnavailableError, IgnnError, ImageReadError, ImageTooLargeError, ImageWriteError
from ..pictures.encode import tiff_entries, tiff_options
from ..pictures.exif import add_to_tiff
from ..pictures.notes import facts_of, with_notes
from ..pictures.picture import ImageFile, Picture, maximum_of
from ..pictures.png import write_png_rows
from ..pictures.readers import EXTRA_READERS, reader_of
from ..pictures.source import Source
from ..pictures.write import WriteOptions, check_held, format_of, with_notes_held
from ..super_resolver import SuperResolver
from ..tiles.plan import Tile
from .interrupt import run_until_stopped
from .jobs import Job, Outcome

logger = logging.getLogger("ignn")

MEMORY = 3 << 29
"""Bytes that the network may take with `tile="auto"` while streaming, however much is free."""

STRIP_ROWS = 64
"""How many rows are read at once, or written into one strip of a TIFF."""


class Rows:
    """A picture file that is read from top to bottom.

    Attributes:
        height, width: size in pixels, after the EXIF orientation is applied.
        channels: 1 (grey) or 3 (RGB).
        dtype: uint8 or uint16.
        notes: what the file says beside its pixels.
    """

    def __init__(self, path: Path, *, background: tuple[int, int, int] | None, max_pixels: int | None) -> None:
        if not path.is_file() or path.stat().st_size == 0:
            raise ImageReadError(f"There is no file {path}, or it is empty.")
        if reader_of(Source(str(path), path)) in EXTRA_READERS:
            raise ImageReadError(
                f"{path} is not streamed: HEIC, JPEG XL and raw files are read whole. Leave out --stream."
            )
        vips = _vips()
        try:
            image = vips.Image.new_from_file(str(path), access="sequential", fail_on="truncated")
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise ImageTooLargeError(f"{path} has {image.width * image.height:,} pixels. Raise --max-pixels.")
            if image.get_typeof("orientation") and image.get("orientation") != 1:
                # Turning needs the last rows first: libvips then decodes to a temporary file.
                image = vips.Image.new_from_file(str(path), access="random", fail_on="truncated").autorot()
            converted = image.interpretation in ("cmyk", "lab")
            image = _plain(path, image, background)
        except vips.Error as error:
            raise ImageReadError(f"{path} is not an image that libvips reads ({_last_line(error)}).") from error
        self.height, self.width, self.channels = image.height, image.width, image.bands
        self.dtype = np.dtype(np.uint16 if image.format == "ushort" else np.uint8)
        self.notes = _notes(path, self.channels, keep_profile=not converted)
        self._path, self._error, self._region = path, vips.Error, vips.Region.new(image)
        self._first, self._buffer = 0, np.empty((0, self.width, self.channels), self.dtype)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop) as (rows, width, channels). Bounds never go back: rows before `start` are gone."""
        end = self._first + len(self._buffer)
        parts = [self._buffer[start - self._first :]] if start < end else []
        for row in range(end, stop, STRIP_ROWS):
            rows = min(STRIP_ROWS, stop - row)
            try:
                data = self._region.fetch(0, row, self.width, rows)
            except self._error as error:
                raise ImageReadError(f"{self._path} is damaged or truncated ({_last_line(error)}).") from error
            part = np.frombuffer(data, self.dtype).reshape(rows, self.width, self.channels)
            parts.append(part[max(0, start - row) :])
        self._first, self._buffer = start, parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._buffer

    def read_crop(self, tile: Tile) -> Values:
        """Read a tile's crop, (H, W, 3) RGB 0..255, in the order of the plan: the file's own bytes, or float32."""
        rows = self.read(tile.row.crop_start, tile.row.crop_stop)
        crop = rows[:, tile.column.crop_start : tile.column.crop_stop]
        if self.dtype == np.uint8 and self.channels == 3:
            return crop
        values = crop.astype(np.float32) * np.float32(255 / maximum_of(self.dtype))
        return np.repeat(values, 3, axis=2) if self.channels == 1 else values


def run(
    job: Job,
    resolver: SuperResolver,
    options: WriteOptions,
    *,
    max_pixels: int | None,
    progress: Callable[[Job, int, int], None],
) -> Generator[Outcome, None, None]:
    """Enlarge one file as `upscale_stream` does; yield its outcome."""

    def enlarge(tile_done: Callable[[], None]) -> None:
        def report(done: int, total: int) -> None:
            progress(job, done, total)
            tile_done()

        upscale_stream(resolver, job.source, job.target, options, max_pixels=max_pixels, progress=report)

    try:
        run_until_stopped(enlarge, resolver.network.backend.cancel)
    except Exception as error:
        yield Outcome(job, error)
    else:
        yield Outcome(job, None)


def upscale_stream(
    resolver: SuperResolver,
    source: Path,
    target: Path,
    options: WriteOptions | None = None,
    *,
    max_pixels: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Enlarge a file with memory bounded by the tile and the width, not by the picture.

    Args:
        source: any picture that libvips reads; JPEG, PNG and TIFF are read without decoding all of it.
        target: .png or .tif.
        progress: called with (tiles done, tiles in all).

    Raises:
        ImageReadError, ImageWriteError: what cannot be read, what this cannot write.
        BackendUnavailableError: pyvips is not installed.
    """
    options = options or WriteOptions()
    if format_of(target).pillow not in ("PNG", "TIFF"):
        raise ImageWriteError(f"{target}: a stream is written as PNG or TIFF. Use .png or .tif.")
    if resolver.self_ensemble:
        raise IgnnError("A stream cannot be turned as --self-ensemble asks. Leave out one of the two.")
    rows = Rows(source, background=options.background_rgb, max_pixels=max_pixels)
    plan = resolver.network.plan(rows.height, rows.width, most_bytes=MEMORY)
    convert = resolver.network.converter(rows.dtype, grey=rows.channels == 1)
    bands = resolver.network.bands(rows.read_crop, plan, convert, progress)
    shape = (rows.height * resolver.scale, rows.width * resolver.scale, rows.channels)
    nothing = np.broadcast_to(np.zeros(1, rows.dtype), shape)
    large = replace(rows.notes, color=nothing)
    check_held(ImageFile([large], []), format_of(target), str(target), options)
    notes = with_notes_held(large, source.name, format_of(target))
    with atomic_path(target, error=ImageWriteError) as temporary:
        if format_of(target).pillow == "PNG":
            with temporary.open("wb") as file:
                write_png_rows(file, shape, rows.dtype, bands, notes)
        else:
            _write_tiff(temporary, shape, rows.dtype, bands, notes)
            with temporary.open("r+b") as file:
                if not add_to_tiff(file, tiff_entries(notes)):
                    logger.warning("%s: EXIF and XMP left out, which are not written to a BigTIFF", source.name)


def _write_tiff(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], bands: Iterable[NDArray[Any]], notes: Picture
) -> None:
    import tifffile

    grey = shape[2] == 1
    with tifffile.TiffWriter(path, bigtiff=math.prod(shape) * dtype.itemsize > 3_900_000_000) as writer:
        writer.write(
            _strips(bands),
            shape=shape[:2] if grey else shape,
            dtype=dtype,
            rowsperstrip=STRIP_ROWS,
            **tiff_options(notes),
        )


def _strips(bands: Iterable[NDArray[Any]]) -> Iterator[bytes]:
    """Compress bands of any height as strips of `STRIP_ROWS` rows; the last one is shorter."""
    rest: NDArray[Any] | None = None
    for band in bands:
        rest = band if rest is None or not len(rest) else np.concatenate([rest, band])
        full = len(rest) // STRIP_ROWS * STRIP_ROWS
        for row in range(0, full, STRIP_ROWS):
            yield zlib.compress(rest[row : row + STRIP_ROWS].tobytes(), 6)
        rest = rest[full:]
    if rest is not None and len(rest):
        yield zlib.compress(rest.tobytes(), 6)


def _plain(path: Path, image: Any, background: tuple[int, int, int] | None) -> Any:  # noqa: ANN401 - of libvips
    """Return the image as 8-bit or 16-bit grey or RGB."""
    if image.interpretation in ("cmyk", "lab"):
        image = _to_srgb(image)
    if image.format not in ("uchar", "ushort"):
        raise ImageReadError(f"{path} has values of type {image.format}; 8 or 16 bits are streamed.")
    if image.hasalpha():
        if background is None:
            raise ImageReadError(f"{path} has transparency, which is not streamed. Give --background COLOR.")
        image = image.flatten(background=list(background)).cast(image.format)
    if image.bands not in (1, 3):
        raise ImageReadError(f"{path} has {image.bands} channels; 1 or 3 are streamed.")
    return image


def _to_srgb(image: Any) -> Any:  # noqa: ANN401 - of libvips
    """Return CMYK or LAB as RGB, as a picture in memory is converted: CMYK by its profile, if it has one."""
    if image.interpretation == "lab":
        logger.warning("LAB converted to sRGB")
        return image.colourspace("srgb")
    if image.get_typeof("icc-profile-data"):
        logger.warning("CMYK converted to sRGB by its ICC profile")
        depth = 16 if image.format == "ushort" else 8
        return image.icc_transform("srgb", embedded=True, intent="perceptual", depth=depth)
    logger.warning("CMYK converted to RGB without a profile")
    white = 65535 if image.format == "ushort" else 255
    inks, black = image.extract_band(0, n=3), image.extract_band(3)
    mixed = (white - inks) * (white - black) / white
    return mixed.rint().cast(image.format).copy(interpretation="rgb16" if white > 255 else "srgb")


def _notes(path: Path, channels: int, *, keep_profile: bool) -> Picture:
    """Return a picture of no size with what the file says beside its pixels, as Pillow reads it."""
    empty = Picture(np.zeros((1, 1, channels), np.uint8))
    source = Source(str(path), path, sys.maxsize)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with source.opened() as image:
                if keep_profile:
                    empty = replace(empty, icc=image.info.get("icc_profile"))
                return with_notes(empty, facts_of(image, source), path.name, turned=True)
    except Exception as error:  # a format of libvips alone
        logger.warning("%s: metadata left out (%s)", path.name, error)
        return empty


def _vips() -> ModuleType:
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"Streaming needs pyvips, which cannot be loaded ({error}). Install it with: {install_command('stream')}"
        ) from error
    logging.getLogger("pyvips").setLevel(logging.ERROR)
    return pyvips


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
