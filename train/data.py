"""Training data: a folder of photographs, decoded once into memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from runtime.atomic import atomic_path, write_text
from runtime.errors import ImageReadError, InvalidImageError, UsageError
from train.photographs import refuse_evaluation_images
from train.resize import downsample_uint8

_SUFFIXES = tuple(Image.registered_extensions())
_CACHE_FORMAT = 3


def read_rgb(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode an image to HWC uint8 RGB, [0, 255]: its pixels as stored, not turned and not color-managed.

    Raises:
        ImageReadError: the file is missing, damaged, too large for Pillow, or no image.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8, not scale them
                gray = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
                return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageReadError(f"{path} cannot be read as an image: {reason}. Replace it, or take it away.") from error


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder, sorted by name.

    Raises:
        UsageError: the folder is missing or holds no image.
    """
    folder = Path(folder)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise UsageError(f"No image in {folder} (formats: those Pillow reads). Pass a folder of photographs.")
    return paths


def make_lr(hr: NDArray[np.uint8], scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Crop to a multiple of the scale and reduce, by the field's protocol: MATLAB bicubic, rounded to 8 bits.

    Args:
        hr: HWC uint8.
        scale: 2, 3 or 4.

    Returns:
        (lr, hr), both HWC uint8; hr is `scale` times as large as lr.

    Raises:
        InvalidImageError: the image is smaller than one LR pixel.
    """
    height, width = (size // scale * scale for size in hr.shape[:2])
    if not height or not width:
        raise InvalidImageError(f"{hr.shape[1]} x {hr.shape[0]} pixels cannot be reduced by {scale}.")
    hr = hr[:height, :width]
    return downsample_uint8(hr, scale), hr


@dataclass(frozen=True)
class PatchSource:
    """LR and HR photographs as flat memory-mapped bytes, with random access to aligned patches."""

    scale: int
    pixels: NDArray[np.uint8]
    """Every LR and HR image, HWC, one after another."""
    entries: list[tuple[int, int, int, int]]
    """Per image: offset of LR, offset of HR, LR height, LR width."""
    skipped: list[str]
    """Files that were unreadable or too small, with the reason."""
    checksum: str
    """SHA-256 of the cached bytes."""
    trained: int
    """Number of images, the first, that batches are cut from."""
    validation_images: list[int]
    """Numbers of the photographs held out, the last by name; no batch is cut from them or their reduced copies. (By
    name, so that crops of one photograph, which are named alike, stay on one side, except at the boundary.)"""

    def batch(self, step: int, seed: int, size: int, patch: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Return a batch that depends on (seed, step) alone, so that a resumed run equals an unbroken one.

        Args:
            step: number of the batch.
            seed: of the whole run.
            size: patches in the batch.
            patch: side of an LR patch in pixels.
            first: number of the first patch within the step (for several processes).

        Returns:
            (lr, hr): uint8 (size, 3, patch, patch) and (size, 3, scale * patch, scale * patch), RGB.
        """
        lr_batch: list[NDArray[Any]] = []
        hr_batch: list[NDArray[Any]] = []
        for number, y, x, turns, flip in self.draw(step, seed, size, patch, first).tolist():
            for image, s, target in zip(self.image(number), (1, self.scale), (lr_batch, hr_batch), strict=True):
                part = image[s * y : s * (y + patch), s * x : s * (x + patch)]
                # One item a pixel, not three: NumPy then copies turned images twice as fast.
                target.append(turn(part.view("V3")[..., 0], turns, flip))
        return _to_tensor(lr_batch), _to_tensor(hr_batch)

    def draw(self, step: int, seed: int, size: int, patch: int, first: int = 0) -> NDArray[np.int64]:
        """Draw the patches of a batch, each place of each image as likely as any other.

        Args:
            step, seed, size, patch, first: as for `batch`.

        Returns:
            (size, 5): number of the image, top row and left column in LR pixels, and the arguments of `turn`.
        """
        sizes = np.array(self.entries)[: self.trained, 2:]
        places = sizes - patch + 1
        cumulative = places.prod(1).cumsum() / places.prod(1).sum()
        draws = np.random.default_rng((seed, step)).random((first + size, 5))[first:]
        numbers = cumulative.searchsorted(draws[:, 0], side="right")
        counts = np.column_stack([places[numbers], np.full((size, 2), (4, 2))])
        return np.column_stack([numbers, (draws[:, 1:] * counts).astype(np.int64)])

    def image(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return LR and HR of one photograph, HWC uint8 views of the memory-mapped bytes."""
        lr_offset, hr_offset, h, w = self.entries[number]
        H, W = h * self.scale, w * self.scale
        lr = self.pixels[lr_offset : lr_offset + h * w * 3].reshape(h, w, 3)
        return lr, self.pixels[hr_offset : hr_offset + H * W * 3].reshape(H, W, 3)


def turn(patch: NDArray[Any], turns: int, flip: int) -> NDArray[Any]:
    """Return a view of rows and columns turned by quarters, counterclockwise, and then mirrored or not."""
    patch = np.rot90(patch, turns)
    return patch[:, ::-1] if flip else patch


def open_patches(
    folder: str | os.PathLike[str],
    scale: int,
    patch: int,
    cache: str | os.PathLike[str],
    held_out: int = 0,
    copies: Sequence[float] = (),
) -> PatchSource:
    """Decode a folder once into `cache` and open it.

    Args:
        folder: photographs in anything Pillow reads, at any depth.
        scale: 2, 3 or 4.
        patch: LR patch side; photographs with less are skipped.
        cache: folder for the decoded arrays; decoded again when the files change.
        held_out: photographs, the last by name, to keep from training; at most a quarter of all.
        copies: factors, below 1, by which reduced copies of every photograph are made, by Pillow's bicubic.

    Raises:
        UsageError: the folder is missing, holds no image, or holds images of an evaluation set.
        ImageReadError: none of the images can be used.
        WriteError: the cache cannot be written.
    """
    paths = list_images(folder)
    stamp = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = hashlib.sha256(json.dumps([_CACHE_FORMAT, scale, patch, copies, stamp]).encode()).hexdigest()[:16]
    cache = Path(cache)
    index_file, pixel_file = cache / f"x{scale}-{key}.json", cache / f"x{scale}-{key}.bin"
    if not index_file.exists():
        refuse_evaluation_images(paths)
        _decode(paths, partial(_read_pairs, scale, patch, copies), index_file, pixel_file)
    index = json.loads(index_file.read_text())
    if not index["entries"]:
        raise ImageReadError(f"No usable photograph in {folder}: {'; '.join(index['skipped'][:5])}")
    pixels = np.memmap(pixel_file, dtype=np.uint8, mode="r")
    entries = [tuple(entry) for entry in index["entries"]]
    photographs = index["photographs"]
    held = photographs[len(photographs) - min(held_out, len(photographs) // 4) :]
    trained = held[0] if held else len(entries)
    return PatchSource(scale, pixels, entries, index["skipped"], index["checksum"], trained, held)


_Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _decode(
    paths: list[Path], read: Callable[[Path], tuple[list[_Pair], Exception | None]], index_file: Path, pixel_file: Path
) -> None:
    entries: list[tuple[int, ...]] = []
    photographs: list[int] = []  # the number of each one's first image
    skipped, offset, digest = [], 0, hashlib.sha256()
    workers = os.cpu_count() or 1
    with (
        atomic_path(pixel_file) as temporary,
        temporary.open("wb") as output,
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(paths), desc="decoding", unit="image", leave=False, disable=None) as bar,
    ):
        for start in range(0, len(paths), 4 * workers):
            some = paths[start : start + 4 * workers]  # no more than these wait in memory
            for path, (pairs, reason) in zip(some, pool.map(read, some), strict=True):
                bar.update()
                if reason:
                    skipped.append(f"{path.name}: {reason}")
                    continue
                photographs.append(len(entries))
                for pair in pairs:
                    lr = pair[0]
                    entries.append((offset, offset + lr.size, *lr.shape[:2]))
                    for array in pair:
                        data = np.ascontiguousarray(array).tobytes()
                        digest.update(data)
                        output.write(data)
                        offset += len(data)
    index = {"entries": entries, "photographs": photographs, "skipped": skipped, "checksum": digest.hexdigest()}
    write_text(index_file, json.dumps(index))


def _read_pairs(scale: int, patch: int, copies: Sequence[float], path: Path) -> tuple[list[_Pair], Exception | None]:
    """Return (LR, HR) of a file and of its reduced copies that hold a patch, or why it is of no use."""
    try:
        hr = read_rgb(path)
        if min(hr.shape[:2]) // scale < patch:
            raise InvalidImageError(f"{hr.shape[1]} x {hr.shape[0]} pixels hold no patch of {scale * patch}.")
        pairs = [make_lr(hr, scale)]
        for factor in copies:
            size = round(factor * hr.shape[1]), round(factor * hr.shape[0])
            if min(size) // scale >= patch:
                pairs.append(make_lr(np.asarray(Image.fromarray(hr).resize(size, Image.Resampling.BICUBIC)), scale))
        return pairs, None
    except (ImageReadError, InvalidImageError) as error:
        return [], error


def _to_tensor(images: list[NDArray[np.void]]) -> Tensor:
    pixels = np.ascontiguousarray(np.stack(images))
    return torch.from_numpy(pixels.view(np.uint8).reshape(*pixels.shape, 3)).permute(0, 3, 1, 2)
