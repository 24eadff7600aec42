"""Enlarge every picture of a folder by a network that repeats pixels, and say what was refused, changed or lost.

    python tests/runtime/real_files.py FOLDER [FOLDER ...]

Any folder will do: photographs, or the test suites of image libraries. Of each file every pixel of the result is known:
it is held against what Pillow alone reads from the source and from the result. A finding is printed when it is made,
and at the end how many files have each. "said" are our own warnings, "refused" our own errors, "slow" what took longer
than `--seconds`; "changed" and "lost" are what nothing was said of, and "defect" any other exception: with one of these
three the exit code is 1.
"""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import png
from PIL import Image, ImageOps, ImageSequence, IptcImagePlugin
from small_networks import make_nearest, write_model

from runtime import IgnnError, SuperResolver
from runtime.pictures.picture import ImageFile, Picture, eight_bits
from runtime.pictures.read import read_file
from runtime.pictures.write import FORMATS, write_file

SCALE = 2
LOSSY = {".jpg", ".jpeg", ".webp", ".avif", ".gif"}
DEFECTS = ("changed", "lost", "defect")
CONVERTED = ("CMYK", "YCbCr", "LAB", "HSV", "F", "I")
"""Pillow's modes of which the RGB that Pillow gives is not the one that is meant."""


class TooLong(BaseException):
    """A file took longer than it may; no `except Exception` of a decoder's keeps it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` after that time, where there are signals."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def end(number: int, frame: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Words(logging.Handler):
    """Collects our warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def take(self) -> list[str]:
        texts, self.texts = self.texts, []
        return texts


def check(path: Path, resolver: SuperResolver, folder: Path, max_pixels: int, words: Words) -> Iterator[str]:
    """Yield what there is to say about one file."""
    words.take()
    try:
        small = read_file(path, max_pixels=max_pixels)
        yield from compare_source(path, small)
        large = resolver.upscale_file(small)
        yield from compare_enlarged(small, large)
        suffix = path.suffix.lower() if path.suffix.lower() in FORMATS else ".png"
        target = folder / f"out{suffix}"
        try:
            write_file(large, target)
        except IgnnError as error:
            yield f"refused: {plain(str(error), path, target)}"
            target = folder / "out.png"
            write_file(large, target)
        said = words.take()
        yield from (f"said: {plain(text, path, target)}" for text in said)
        yield from compare_result(path, large, target, " ".join(said))
    except IgnnError as error:
        yield f"refused: {plain(str(error), path, path)}"
    except Exception as error:
        yield f"defect: {type(error).__name__}: {plain(str(error), path, path)}"


def plain(text: str, *paths: Path) -> str:
    """A message without names and numbers, so that equal ones are counted together."""
    for path in paths:
        text = text.replace(str(path), "FILE").replace(path.name, "FILE")
    return re.sub(r"\d[\d,.]*", "N", text)[:160]


def frames_of(path: Path) -> list[tuple[str, np.ndarray]]:
    """Mode and RGBA of each frame, by Pillow alone; of a still PNG by pypng."""
    with Image.open(path) as image:
        if image.format == "PNG" and getattr(image, "n_frames", 1) == 1 and image.getexif().get(0x0112, 1) == 1:
            reader = png.Reader(filename=str(path))
            width, height, rows, info = reader.asRGBA()
            values = np.array([np.array(row) for row in rows]).reshape(height, width, 4)
            if len(reader.trns or b"") != 2 or int.from_bytes(reader.trns, "big") >> reader.bitdepth == 0:
                return [("RGBA", np.rint(values * (255 / ((1 << info["bitdepth"]) - 1))).astype(np.uint8))]
            return [(image.mode, np.asarray(image.convert("RGBA")))]  # pypng does not cut it to the depth
        if image.format in ("PSD", "MPO"):
            return [(image.mode, np.asarray(ImageOps.exif_transpose(image).convert("RGBA")))]
        found = []
        for frame in ImageSequence.Iterator(image):
            mode = frame.mode
            upright = ImageOps.exif_transpose(frame)
            found.append((mode, np.asarray(upright.convert("RGBA"))))
        return found[1:] if image.info.get("default_image") and len(found) > 1 else found


def compare_source(path: Path, small: ImageFile) -> Iterator[str]:
    """What was read, against what Pillow reads."""
    try:
        expected = frames_of(path)
    except Exception:
        return  # Pillow does not read it
    if len(expected) != len(small.frames):
        yield f"changed: {len(small.frames)} of {len(expected)} frames are read"
        return
    for (mode, rgba), frame in zip(expected, small.frames, strict=True):
        if mode.startswith(CONVERTED) or rgba.shape[:2] != frame.color.shape[:2]:
            if rgba.shape[:2] != frame.color.shape[:2] and len(expected) == 1:
                yield f"changed: size of mode {mode}"
            continue
        own = rgba_of(frame)
        visible = (rgba[..., 3] > 0) & (own[..., 3] > 0)
        slack = np.ones(own.shape[:2])
        if frame.color.dtype == np.uint16:  # colors that alpha is multiplied into, Pillow divides in 8 bits
            slack += 300 / np.maximum(rgba[..., 3], 1) * (rgba[..., 3] < 255)
        if np.abs(own[..., 3].astype(int) - rgba[..., 3]).max() > 1:
            yield f"changed: transparency of mode {mode}, {frame.color.dtype}"
        elif (np.abs(own.astype(int) - rgba).max(axis=2) > slack)[visible].any():
            yield f"changed: colors of mode {mode}, {frame.color.dtype}"


def rgba_of(picture: Picture) -> np.ndarray:
    """(H, W, 4) uint8."""
    picture = eight_bits(picture)
    color = np.repeat(picture.color, 3, axis=2) if picture.is_grey else picture.color
    alpha = np.full(color.shape[:2], 255, np.uint8) if picture.alpha is None else picture.alpha
    return np.concatenate([color, alpha[..., None]], axis=2)


def compare_enlarged(small: ImageFile, large: ImageFile) -> Iterator[str]:
    """The network's result, against repeated pixels."""
    for before, after in zip(small.frames, large.frames, strict=True):
        expected = before.color.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        shown = np.ones(expected.shape[:2], bool)
        if before.alpha is not None:
            shown = (before.alpha > 0).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        slack = 1e-6 if before.maximum == 1 else 0
        difference = np.abs(after.color.astype(np.float64) - expected)[shown]
        if difference.size and difference.max() > slack:
            yield f"changed: pixels by the network, {before.color.dtype}"


def compare_result(path: Path, large: ImageFile, target: Path, said: str) -> Iterator[str]:
    """The file that was written, against the enlarged picture and against the source's words."""
    floats = large.frames[0].color.dtype == np.float32 and target.suffix in (".tif", ".tiff", ".pfm")
    kept = [] if floats else frames_of(target)  # Pillow reads no floats of color
    if kept and len(kept) != len(large.frames):
        shown = [rgba_of(frame) for frame in large.frames]
        different = 1 + sum(not np.array_equal(*pair) for pair in pairwise(shown))
        if len(kept) != different:  # equal frames in a row are written as one
            yield f"changed: {target.suffix} of {len(large.frames)} frames has fewer"
        return
    for (mode, rgba), frame in zip(kept, large.frames, strict=False):
        if mode.startswith(CONVERTED) or "ICC" in said:
            continue
        own = rgba_of(frame)
        if own.shape != rgba.shape:
            yield f"changed: size in {target.suffix}"
            continue
        if target.suffix == ".gif":
            own[..., 3] = np.where(own[..., 3] >= 128, 255, 0)
        visible = (own[..., 3] > 0) & (rgba[..., 3] > 0)
        difference = np.abs(own.astype(int) - rgba)[visible]
        if not difference.size:
            continue
        if difference.mean() > 6 if target.suffix in LOSSY else difference.max() > 1:
            yield f"changed: pixels in {target.suffix} of {frame.color.dtype}"
    for key in sorted(facts(path) - facts(target)):
        if (WORDS_OF[key] not in said or not WORDS_OF[key]) and key in HELD.get(target.suffix, ()):
            yield f"lost: {key} in {target.suffix}"


def facts(path: Path) -> set[str]:
    """What Pillow finds beside the pixels."""
    try:
        with Image.open(path) as image:
            image.load()
            exif = image.getexif()
            found: dict[str, Any] = {
                "icc": image.info.get("icc_profile"),
                "xmp": image.info.get("xmp"),
                "dpi": image.info.get("dpi") if image.format not in ("BMP", "ICNS", "DCX") else None,
                "iptc": IptcImagePlugin.getiptcinfo(image) if image.format in ("JPEG", "TIFF") else None,
                "exif": {0x010F, 0x0110, 0x013B, 0x8298, 0x8769, 0x8825} & set(exif) or None,
            }
            return {key for key, value in found.items() if value}
    except Exception:
        return set()


WORDS_OF = {"icc": "ICC", "xmp": "XMP", "dpi": "resolution", "iptc": "IPTC", "exif": "EXIF"}
HELD = {
    suffix: {"icc", "xmp", "dpi", "iptc", "exif"} & {*target.notes} for suffix, target in FORMATS.items()
}  # what each format should have kept


def main() -> int:
    """Check the folders; returns 1 if something changed, was lost or failed from inside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--max-pixels", type=int, default=1_000_000, help="larger files are refused")
    parser.add_argument("--seconds", type=float, default=20, help="most for one file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    words = Words()
    logger = logging.getLogger("ignn")
    logger.addHandler(words)
    logger.propagate = False
    counts: Counter[str] = Counter()
    files = sorted(path for folder in arguments.folders for path in folder.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        resolver = SuperResolver(write_model(Path(name) / "nearest.onnx", make_nearest(SCALE), halo="0"))
        for path in files:
            found: list[str] = []
            try:
                with time_limit(arguments.seconds):
                    found.extend(check(path, resolver, Path(name), arguments.max_pixels, words))
            except TooLong:
                found.append(f"slow: more than {arguments.seconds:g} seconds")
            for finding in dict.fromkeys(found):
                sys.stdout.write(f"{path}: {finding}\n")
            sys.stdout.flush()
            counts.update(set(found) or {"whole"})
    sys.stdout.write(f"\n{len(files)} files:\n")
    for finding, count in sorted(counts.items()):
        sys.stdout.write(f"{count:5} {finding}\n")
    return 1 if any(finding.startswith(DEFECTS) for finding in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
