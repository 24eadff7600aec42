"""What is said beside the pixels: EXIF, XMP, IPTC, texts, resolution, and color spaces."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo

from runtime import errors
from runtime.pictures import exif as tags
from runtime.pictures.color import Coding, profile_of_coding
from runtime.pictures.picture import Picture
from runtime.pictures.read import ImageFile, read_bytes, read_file, read_still
from runtime.pictures.write import write_bytes, write_file

tifffile = pytest.importorskip("tifffile")

ARTIST, MAKER_NOTE, USER_COMMENT = 0x013B, 0x927C, 0x9286
JOSE = "José\0".encode()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" exif:PixelXDimension="4">Jos\xc3\xa9</d></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x50\x00\x05Jos\xc3\xa9"


def exif_block(order: str) -> bytes:
    """Turned; text that is not ASCII; a maker's note that counts from the block's begin; a thumbnail."""
    thumbnail = b"\xff\xd8 a thumbnail that shows what was cropped \xff\xd9"
    outer = [(0x0112, 3, 1, 6), (ARTIST, 2, len(JOSE), None), (0x8769, 4, 1, None)]
    inner = [(MAKER_NOTE, 7, 12, None), (0xA002, 3, 1, 4), (0xA003, 4, 1, 6)]
    at_artist = 8 + 2 + 12 * 3 + 4
    at_inner = at_artist + 6
    at_note = at_inner + 2 + 12 * 3 + 4
    at_second = at_note + 12
    at_thumbnail = at_second + 2 + 12 * 2 + 4
    places = {ARTIST: at_artist, 0x8769: at_inner, MAKER_NOTE: at_note}

    def directory(rows: list, following: int) -> bytes:
        data = struct.pack(order + "H", len(rows))
        for tag, kind, count, value in rows:
            number = places[tag] if value is None else value
            packed = struct.pack(order + "H2x", number) if kind == 3 else struct.pack(order + "I", number)
            data += struct.pack(order + "HHI", tag, kind, count) + packed
        return data + struct.pack(order + "I", following)

    note = b"MAKER\0\0\0" + struct.pack(order + "I", at_note)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    body = directory(outer, at_second) + JOSE + directory(inner, 0) + note
    second = directory([(0x0201, 4, 1, at_thumbnail), (0x0202, 4, 1, len(thumbnail))], 0)
    return b"Exif\0\0" + head + body + second + thumbnail


def values_of(block: bytes) -> dict[int, bytes]:
    """Tags and bytes, of both directories."""
    entries = tags.entries_of(block)
    inner = [entry for outer in entries for entry in outer.directory or ()]
    return {entry.tag: entry.value for entry in (*entries, *inner)}


def block_in(path: Path) -> bytes:
    return Image.open(path).info["exif"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif"])
def test_an_exif_block_changes_where_it_must(tmp_path, photograph, order, suffix):
    block = exif_block(order)
    source = tmp_path / "in.jpg"
    Image.fromarray(photograph[:6, :4]).save(source, exif=block)
    content = read_file(source)
    assert content.frames[0].color.shape == (4, 6, 3)
    write_file(content, tmp_path / f"out{suffix}")
    kept = block_in(tmp_path / f"out{suffix}").removeprefix(b"Exif\0\0")
    assert b"thumbnail" not in kept
    values = values_of(kept)
    assert values[ARTIST] == JOSE
    place = kept.index(b"MAKER")
    assert kept[place + 8 : place + 12] == struct.pack(order + "I", place)
    assert (values[0xA002], values[0xA003]) == (struct.pack("<H", 6), struct.pack("<I", 4))
    assert values.get(0x0112, b"\1\0") == b"\1\0"
    assert Image.open(tmp_path / f"out{suffix}").getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_into_and_out_of_tiff(tmp_path, photograph, order, dtype):
    picture = Picture(photograph[:6, :4].astype(dtype), exif=tags.upright(exif_block(order)), xmp=XMP, iptc=IPTC)
    write_file(ImageFile([picture, picture], []), tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert len(file.pages) == 2
        assert np.array_equal(file.asarray(key=0), picture.color)
        page = file.pages[0].tags
        assert page[700].value == XMP.replace(b'"4"', b'"4"')
        assert bytes(page[33723].value) == IPTC
    assert Image.open(tmp_path / "out.tif").getexif().get_ifd(0x8769)[0xA002] == 4
    again = read_file(tmp_path / "out.tif").frames[0]
    values = values_of(again.exif)
    assert values[ARTIST] == JOSE
    assert values[MAKER_NOTE].startswith(b"MAKER")
    assert again.iptc == IPTC
    write_file(ImageFile([again], []), tmp_path / "out.jpg")
    assert values_of(block_in(tmp_path / "out.jpg"))[ARTIST] == JOSE


def test_a_damaged_exif_block_is_left_out_with_a_word(tmp_path, photograph, caplog):
    Image.fromarray(photograph).save(tmp_path / "in.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 20)
    assert read_still(tmp_path / "in.jpg").exif is None
    assert "in.jpg: EXIF left out, it is damaged" in caplog.text


@pytest.mark.parametrize(
    "block", [b"", b"II*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\x00\x01", b"no"]
)
def test_damaged_blocks_are_told_apart(block):
    with pytest.raises((ValueError, struct.error)):
        tags.upright(b"Exif\0\0" + block)


def said(path: Path) -> dict[str, object]:
    """XMP, IPTC, texts and resolution of a file, by Pillow."""
    image = Image.open(path)
    iptc = IptcImagePlugin.getiptcinfo(image) or {}
    dpi = image.info.get("dpi")
    text = image.info.get("comment", image.info.get("Comment"))
    return {
        "xmp": image.info.get("xmp"),
        "iptc": iptc.get((2, 80)),
        "text": text.decode() if isinstance(text, bytes) else text,
        "dpi": None if dpi is None else round(float(dpi[0])),
    }


@pytest.mark.parametrize(
    ("suffix", "held"),
    [
        (".jpg", {"xmp", "iptc", "text", "dpi"}),
        (".tif", {"xmp", "iptc", "dpi"}),
        (".png", {"xmp", "text", "dpi"}),
        (".webp", {"xmp"}),
        (".avif", {"xmp"}),
        (".gif", {"text"}),
        (".bmp", {"dpi"}),
    ],
)
def test_a_format_keeps_what_it_can_hold_and_says_the_rest(tmp_path, photograph, caplog, suffix, held):
    first = Picture(photograph[:10, :12], xmp=XMP, iptc=IPTC, text=(("Comment", "é"),), dpi=(300.0, 300.0))
    write_file(ImageFile([first], []), tmp_path / "in.jpg")
    caplog.clear()
    write_file(read_file(tmp_path / "in.jpg"), tmp_path / f"out{suffix}")
    upright = XMP.replace(b'Orientation="6"', b'Orientation="1"').replace(b'Dimension="4"', b'Dimension="10"')  # turned
    whole = {"xmp": upright, "iptc": "José".encode(), "text": "é", "dpi": 300}
    found = said(tmp_path / f"out{suffix}")
    assert found == {key: value if key in held else found[key] for key, value in whole.items()}
    if suffix != ".tif":
        assert [key for key in whole if key not in held and found[key] not in (None, 96)] == []
    words = {"xmp": "XMP", "iptc": "IPTC", "text": "text", "dpi": "the resolution"}
    for key, word in words.items():
        assert (word in caplog.text) == (key not in held)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_texts_of_a_png(tmp_path, photograph, dtype):
    texts = (("Title", "Café"), ("Author", "李白"), ("Comment", "plain"))
    write_file(ImageFile([Picture(photograph.astype(dtype), text=texts)], []), tmp_path / "out.png")
    image = Image.open(tmp_path / "out.png")
    assert {key: str(value) for key, value in image.text.items()} == dict(texts)  # type: ignore[attr-defined]
    assert set(read_still(tmp_path / "out.png").text) == set(texts)


def test_a_block_too_long_for_jpeg_is_left_out_with_a_word(tmp_path, photograph, caplog):
    write_file(ImageFile([Picture(photograph, xmp=b"x" * 70_000)], []), tmp_path / "out.jpg")
    assert "XMP left out" in caplog.text


def png_with(chunks: dict[bytes, bytes], values: np.ndarray) -> bytes:
    info = PngInfo()
    for kind, data in chunks.items():
        info.add(kind, data)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def as_shown(content: bytes) -> np.ndarray:
    """Pixels in sRGB, by the file's profile if it has one."""
    image = Image.open(io.BytesIO(content))
    if "icc_profile" not in image.info:
        return np.asarray(image.convert("RGB"))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    return np.asarray(ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"))


def srgb_code(light: np.ndarray) -> np.ndarray:
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_the_gamma_of_a_png(suffix, grey):
    """What is shown is what the gamma says, in every format that holds a profile."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)[None].repeat(8, axis=0)
    data = png_with({b"gAMA": struct.pack(">I", 40_000)}, levels if grey else np.stack([levels] * 3, axis=2))
    shown = as_shown(write_bytes(read_bytes(data), suffix))[0, :, 0]
    expected = srgb_code((levels[0] / 255) ** 2.5)
    assert np.abs(shown - expected).max() < (6 if suffix in (".jpg", ".webp") else 2)


def test_a_usual_gamma_is_no_profile():
    values = np.zeros((4, 4, 3), np.uint8)
    for chunks in ({b"gAMA": struct.pack(">I", 45_455)}, {b"gAMA": struct.pack(">I", 100_000), b"sRGB": b"\0"}):
        assert read_bytes(png_with(chunks, values)).frames[0].icc is None


def test_the_chromaticities_of_a_png():
    """Those of Display P3: its green is outside sRGB, and its white is white."""
    points = [31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000]
    values = np.array([[[255, 255, 255], [0, 255, 0], [128, 128, 128]]], np.uint8)
    chunks = {b"gAMA": struct.pack(">I", 45_455), b"cHRM": struct.pack(">8I", *points)}
    content = read_bytes(png_with(chunks, values))
    shown = as_shown(write_bytes(content, ".png"))[0].astype(int)
    assert np.abs(shown[0] - 255).max() <= 1
    assert np.abs(shown[2] - 128).max() <= 1
    assert np.ptp(shown[1]) == 255
    by_number = profile_of_coding(Coding(12, 13), grey=False)
    assert by_number == content.frames[0].icc


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hdr_colors_stay_hdr(photograph, dtype):
    data = write_bytes(ImageFile([Picture(photograph.astype(dtype), coding=Coding(9, 16))], []), ".png")
    assert b"cICP\x09\x10\0\1" in data
    content = read_bytes(data, name="in.png")
    assert content.frames[0].coding == (9, 16)
    with pytest.raises(errors.ImageWriteError, match=r"HDR colors \(PQ\).*Use \.png"):
        write_bytes(content, ".jpg")


def test_a_coding_that_is_not_hdr_becomes_a_profile(photograph):
    content = read_bytes(png_with({b"cICP": bytes([12, 13, 0, 1])}, photograph))
    assert content.frames[0].coding is None
    assert content.frames[0].icc == profile_of_coding(Coding(12, 13), grey=False)
    assert read_bytes(png_with({b"cICP": bytes([1, 13, 0, 1])}, photograph)).frames[0].icc is None


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_colors_of_a_profile_into_a_format_without_profiles(suffix):
    values = np.full((8, 8, 3), 128, np.uint8)
    data = png_with({b"gAMA": struct.pack(">I", 100_000)}, values)
    result = Image.open(io.BytesIO(write_bytes(read_bytes(data), suffix))).convert("RGB")
    assert abs(result.getpixel((4, 4))[0] - srgb_code(np.array(128 / 255))) < 2
