"""Feed damaged files, engines, odd shapes and hostile metadata to the runtime:
`python tests/runtime/fuzz.py --seconds 60`.

Every case must end in one of our errors or in a picture of the right size; never in another exception, a crash of the
process, more than `SECONDS_A_CASE` seconds or more than `MEMORY_BYTES` of address space. A failing case is repeated by
the seed that is printed. Nightly: `--seconds 600 --seed $RANDOM`.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import onnx
import tifffile
from extra_files import dng, heic, jxl
from fuzz_engines import fuzz_cache, fuzz_engine_model, fuzz_given_engine
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from small_networks import METADATA, make_network, write_model

from runtime import IgnnError, SuperResolver
from runtime.pictures.read import read_file
from runtime.pictures.write import write_file

SECONDS_A_CASE, MEMORY_BYTES, CASES_A_PROCESS = 20, 6 << 30, 200
MAX_PIXELS = 1 << 20


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, dropped, doubled or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        place = rng.randrange(len(data)) if data else 0
        match rng.randrange(6):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place : place + rng.randrange(1, 50)]
            case 2:
                data[place:place] = data[place : place + rng.randrange(1, 200)]
            case 3:
                del data[place:]
            case 4:
                data[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
            case 5:
                data[place] = data[place] ^ 1 << rng.randrange(8) if data else 0
        if not data:
            return b""
    return bytes(data)


def with_true_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the right checksums again, so that damage reaches the decoder behind them."""
    result, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunk = content[place + 4 : place + 8 + length]
        result += struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk))
        place += 12 + length
    return bytes(result)


def seeds() -> dict[str, bytes]:
    """Small whole files of every format."""
    values = np.random.default_rng(0).integers(0, 256, (24, 31, 4), dtype=np.uint8)
    rgba, rgb = Image.fromarray(values), Image.fromarray(values[..., :3])
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {}

    def save(name: str, image: Image.Image, kind: str, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()

    save("rgba.png", rgba, "PNG")
    save("grey.png", rgb.convert("L"), "PNG")
    save("palette.png", rgb.quantize(16), "PNG")
    save("deep.png", Image.fromarray(values[..., 0].astype(np.uint16) * 257), "PNG")
    save("photo.jpg", rgb, "JPEG", exif=exif)
    save("cmyk.jpg", rgb.convert("CMYK"), "JPEG")
    save("raw.tif", rgb, "TIFF")
    save("packed.tif", rgb, "TIFF", compression="tiff_lzw")
    save("moving.gif", rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)], duration=50)
    save("moving.webp", rgba, "WEBP", save_all=True, append_images=[rgba.rotate(90)], duration=50)
    save("still.avif", rgb, "AVIF")
    save("plain.bmp", rgb, "BMP")
    exif[0x010E] = "a word"
    exif.get_ifd(0x8769).update({0x9286: b"ASCII\0\0\0another", 0x927C: bytes(range(64))})
    notes = {"exif": exif, "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", "dpi": (300, 300)}
    save("notes.jpg", rgb, "JPEG", **notes)
    save("notes.webp", rgba, "WEBP", exif=exif, xmp=notes["xmp"])
    save("notes.tif", rgb, "TIFF", **notes)
    words = PngInfo()
    words.add(b"gAMA", struct.pack(">I", 45455))
    words.add(b"cICP", bytes([9, 16, 0, 1]))
    words.add_itxt("Title", "a word", "en", "Title")
    save("notes.png", rgb, "PNG", pnginfo=words, exif=exif)
    for name, array, options in (
        ("float.tif", values[..., :3].astype(np.float32) / 255, {}),
        ("planes.tif", values[..., :3].astype(np.uint16).transpose(2, 0, 1) * 257, {"planarconfig": "separate"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="rgb", **options)
        files[name] = buffer.getvalue()
    files["float.pfm"] = b"PF\n31 24\n-1.0\n" + (values[..., :3].astype("<f4") / 255).tobytes()
    deep = values.astype(np.uint16) * 257
    files |= {"still.heic": heic(values), "deep.heic": heic(deep[..., :3])}
    files |= {"still.jxl": jxl(values), "lossy.jxl": jxl(deep[..., :3], lossless=False)}
    files["raw.dng"] = dng(np.tile(deep[..., 0], (2, 2)), 6)
    return files


def fuzz_picture(rng: random.Random, folder: Path, resolver: SuperResolver, files: dict[str, bytes]) -> None:
    """A damaged picture, read, enlarged and written."""
    name = rng.choice(sorted(files))
    content = mutate(files[name], rng)
    if name.endswith(".png") and rng.random() < 0.5:
        content = with_true_checksums(content)
    path = folder / name
    path.write_bytes(content)
    small = read_file(path, max_pixels=MAX_PIXELS)
    if sum(frame.color.size for frame in small.frames) > 200_000:
        return  # whole and large: a matter of time only
    large = resolver.upscale_file(small)
    for before, after in zip(small.frames, large.frames, strict=True):
        height, width = before.color.shape[:2]
        if after.color.shape[:2] != (2 * height, 2 * width):
            raise AssertionError(f"{before.color.shape} became {after.color.shape}")
    write_file(large, folder / f"out{rng.choice(['.png', '.tif', '.webp', '.gif'])}")


def fuzz_array(rng: random.Random, resolver: SuperResolver) -> None:
    """An array of an odd shape, type and content."""
    shape = tuple(rng.choice([0, 1, 2, 3, 4, 5, 7, 40]) for _ in range(rng.randrange(5)))
    if rng.random() < 0.1:
        shape = rng.choice([(1, 4000, 3), (4000, 1), (1, 1, 1), (3, 3, 3, 3, 3, 3)])
    kind = rng.choice(["u1", "<u2", ">u2", "i4", "f2", "f4", "f8", "c8", "?", "S3", "O", "M8[s]"])
    array = np.zeros(shape, kind)
    if kind in ("f2", "f4", "f8") and array.size and rng.random() < 0.5:
        array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf, -1e-3, 1e30, 0.5])
    result = resolver(array)
    expected = (2 * shape[0], 2 * shape[1], *shape[2:])
    if result.shape != expected or result.dtype != array.dtype:
        raise AssertionError(f"{shape} {array.dtype} became {result.shape} {result.dtype}")


def fuzz_metadata(rng: random.Random, folder: Path) -> None:
    """A model whose metadata lies."""
    hostile: list[str | None] = [
        "",
        "0",
        "-1",
        "1",
        "3",
        "16",
        "1024",
        "4096",
        "1073741824",
        "999999999",
        "1e5",
        "nan",
        "2" * 4000,
        "\0",
    ]
    hostile += ["٣", "x2", None, " 2", "0x2", "\x1b[2J", "{" * 1000, "Q" * 100_000]
    lies = {rng.choice(sorted(METADATA)): rng.choice(hostile) for _ in range(rng.choice([1, 2, 6]))}
    path = write_model(folder / "lies.onnx", make_network(2), **lies)
    if rng.random() < 0.2:  # of the right length, but no text
        text = rng.choice([b"0..255", b"ignn.", b"RGB"])
        path.write_bytes(path.read_bytes().replace(text, b"\xff" * len(text)))
    check_model(path, rng)


def fuzz_signature(rng: random.Random, folder: Path) -> None:
    """A whole network with our metadata, whose input or output is not what it should be."""
    network = make_network(rng.choice([1, 2, 3]))
    value = rng.choice([network.graph.input, network.graph.output])
    kind = value[0].type.tensor_type
    match rng.randrange(5):
        case 0:
            kind.elem_type = rng.choice([onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16, onnx.TensorProto.STRING])
        case 1:
            kind.shape.dim[rng.randrange(4)].dim_value = rng.choice([-1, 0, 1, 3, 13, 1 << 40])
        case 2:
            del kind.shape.dim[rng.randrange(4) :]
        case 3:
            value.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))
        case 4:
            value[0].name = rng.choice(["", "x" * 10_000, "lr", "sr", "c0"])
    check_model(write_model(folder / "signature.onnx", network), rng)


def fuzz_model(rng: random.Random, folder: Path, model: bytes) -> None:
    """A damaged ONNX file."""
    path = folder / "damaged.onnx"
    path.write_bytes(mutate(model, rng))
    check_model(path, rng)


def check_model(path: Path, rng: random.Random) -> None:
    """Load a model and run it; a loaded one must give a picture of its scale's size."""
    resolver = SuperResolver(path, tile=rng.choice([None, "auto", 8]), threads=1)
    result = resolver(np.zeros((13, 17, 3), np.uint8))
    if result.shape != (13 * resolver.scale, 17 * resolver.scale, 3):
        raise AssertionError(f"scale {resolver.scale} gave {result.shape}")


def work(first: int, count: int) -> None:
    """Cases `first` to `first + count`; what must not happen ends the process."""
    import faulthandler
    import logging
    import resource
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    files = seeds()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_model(folder / "whole.onnx", make_network(2))
        resolver, model = SuperResolver(path, threads=1), path.read_bytes()
        onnx.checker.check_model(path)
        for seed in range(first, first + count):
            rng = random.Random(seed)
            cases: list[Callable[[], None]] = [
                lambda rng=rng: fuzz_picture(rng, folder, resolver, files),
                lambda rng=rng: fuzz_array(rng, resolver),
                lambda rng=rng: fuzz_metadata(rng, folder),
                lambda rng=rng: fuzz_model(rng, folder, model),
                lambda rng=rng: fuzz_signature(rng, folder),
                lambda rng=rng: fuzz_cache(rng, folder, path, mutate),
                lambda rng=rng: fuzz_given_engine(rng, folder, model, mutate),
                lambda rng=rng: fuzz_engine_model(rng, folder, model, mutate),
            ]
            sys.stdout.write(f"{seed}\n")
            sys.stdout.flush()
            faulthandler.dump_traceback_later(SECONDS_A_CASE, exit=True)
            try:
                rng.choices(cases, [12, 4, 2, 4, 2, 8, 4, 2])[0]()
            except IgnnError as error:
                if not str(error).strip():
                    raise AssertionError("an error without a message") from error
            faulthandler.cancel_dump_traceback_later()


def main() -> int:
    """Run processes of cases until the time is up; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="first case; a failing one is repeated by its number")
    parser.add_argument("--cases", type=int, default=CASES_A_PROCESS, help="cases of one process")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.seed, arguments.cases)
        return 0
    end, first = time.monotonic() + arguments.seconds, arguments.seed
    while time.monotonic() < end:
        command = [sys.executable, __file__, "--worker", "--seed", str(first), "--cases", str(arguments.cases)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            seed = (result.stdout.split() or [str(first)])[-1]
            sys.stderr.write(f"{result.stderr}\ncase {seed} failed (exit {result.returncode}); repeat it with:\n")
            sys.stderr.write(f"  python {Path(__file__).name} --worker --cases 1 --seed {seed}\n")
            return 1
        first += arguments.cases
    sys.stdout.write(f"{first - arguments.seed} cases, each an error message or a right picture\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
