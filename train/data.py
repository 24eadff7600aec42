"""Training data: a folder of photographs, decoded once into memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
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
_CACHE_FORMAT = 2


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
    held_out: int = 0
    """Number of images, the last by name, that no batch is cut from. (By name, so that crops of one photograph, which
    are named alike, stay on one side, except at the boundary.)"""

    @property
    def validation_images(self) -> list[int]:
        """Numbers of the images held out."""
        return list(range(len(self.entries) - self.held_out, len(self.entries)))

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
        trained = self.entries[: len(self.entries) - self.held_out]
        areas = np.array([(h - patch + 1) * (w - patch + 1) for _, _, h, w in trained], dtype=np.float64)
        cumulative = areas.cumsum() / areas.sum()
        for sample in range(first, first + size):
            rng = np.random.default_rng((seed, step, sample))
            lr, hr = self.image(int(cumulative.searchsorted(rng.random(), side="right")))
            y, x = (int(rng.integers(0, extent - patch + 1)) for extent in lr.shape[:2])
            s = self.scale
            lr = lr[y : y + patch, x : x + patch]
            hr = hr[s * y : s * (y + patch), s * x : s * (x + patch)]
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            for part, target in ((lr, lr_batch), (hr, hr_batch)):
                # One item a pixel, not three: NumPy then copies turned images twice as fast.
                part = np.rot90(part.view("V3")[..., 0], turns)
                target.append(part[:, ::-1] if flip else part)
        return _to_tensor(lr_batch), _to_tensor(hr_batch)

    def image(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return LR and HR of one photograph, HWC uint8 views of the memory-mapped bytes."""
        lr_offset, hr_offset, h, w = self.entries[number]
        H, W = h * self.scale, w * self.scale
        lr = self.pixels[lr_offset : lr_offset + h * w * 3].reshape(h, w, 3)
        return lr, self.pixels[hr_offset : hr_offset + H * W * 3].reshape(H, W, 3)


def open_patches(
    folder: str | os.PathLike[str], scale: int, patch: int, cache: str | os.PathLike[str], held_out: int = 0
) -> PatchSource:
    """Decode a folder once into `cache` and open it.

    Args:
        folder: photographs in anything Pillow reads, at any depth.
        scale: 2, 3 or 4.
        patch: LR patch side; photographs with less are skipped.
        cache: folder for the decoded arrays; decoded again when the files change.
        held_out: images, the last by name, to keep from training; at most a quarter of all.

    Raises:
        UsageError: the folder is missing, holds no image, or holds images of an evaluation set.
        ImageReadError: none of the images can be used.
        WriteError: the cache cannot be written.
    """
    paths = list_images(folder)
    stamp = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = hashlib.sha256(json.dumps([_CACHE_FORMAT, scale, patch, stamp]).encode()).hexdigest()[:16]
    cache = Path(cache)
    index_file, pixel_file = cache / f"x{scale}-{key}.json", cache / f"x{scale}-{key}.bin"
    if not index_file.exists():
        refuse_evaluation_images(paths)
        _decode(paths, scale, patch, index_file, pixel_file)
    index = json.loads(index_file.read_text())
    if not index["entries"]:
        raise ImageReadError(f"No usable photograph in {folder}: {'; '.join(index['skipped'][:5])}")
    pixels = np.memmap(pixel_file, dtype=np.uint8, mode="r")
    entries = [tuple(entry) for entry in index["entries"]]
    held_out = min(held_out, len(entries) // 4)
    return PatchSource(scale, pixels, entries, index["skipped"], index["checksum"], held_out)


def _decode(paths: list[Path], scale: int, patch: int, index_file: Path, pixel_file: Path) -> None:
    entries, skipped, offset, digest = [], [], 0, hashlib.sha256()
    with atomic_path(pixel_file) as temporary, temporary.open("wb") as output:
        for path in tqdm(paths, desc="decoding", unit="image", leave=False, disable=None):
            try:
                hr = read_rgb(path)
                if min(hr.shape[:2]) // scale < patch:
                    raise InvalidImageError(f"{hr.shape[1]} x {hr.shape[0]} pixels hold no patch of {scale * patch}.")
                lr, hr = make_lr(hr, scale)
            except (ImageReadError, InvalidImageError) as error:
                skipped.append(f"{path.name}: {error}")
                continue
            entries.append((offset, offset + lr.size, *lr.shape[:2]))
            for array in (lr, hr):
                data = np.ascontiguousarray(array).tobytes()
                digest.update(data)
                output.write(data)
                offset += len(data)
    index = {"entries": entries, "skipped": skipped, "checksum": digest.hexdigest()}
    write_text(index_file, json.dumps(index))


def _to_tensor(images: list[NDArray[np.void]]) -> Tensor:
    pixels = np.ascontiguousarray(np.stack(images))
    return torch.from_numpy(pixels.view(np.uint8).reshape(*pixels.shape, 3)).permute(0, 3, 1, 2)
