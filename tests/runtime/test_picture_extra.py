"""HEIC, JPEG XL and raw files of cameras: the extra `formats`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from extra_files import dng, heic, jxl, with_cicp
from PIL import Image

from runtime import cli
from runtime.clone import install_command
from runtime.errors import BackendUnavailableError, ImageReadError, ImageTooLargeError
from runtime.pictures.color import Coding, make_profile
from runtime.pictures.heif import _picture
from runtime.pictures.jxl import _is_animation, is_jxl
from runtime.pictures.picture import Picture
from runtime.pictures.read import read_bytes, read_file
from runtime.pictures.readers import EXTRA_SUFFIXES

P3 = make_profile(((0.3127, 0.329), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), None, grey=False)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


@pytest.fixture
def color() -> np.ndarray:
    """(48, 64, 3) uint16 of all values, of flat fields."""
    fields = np.random.default_rng(0).integers(0, 65536, (6, 8, 3), np.uint16)
    return fields.repeat(8, axis=0).repeat(8, axis=1)


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112], block[0x010F] = orientation, "Some maker"
    return block


def only(content: bytes) -> Picture:
    (frame,) = read_bytes(content).frames
    return frame


def examples(color: np.ndarray) -> dict[str, bytes]:
    return {"a.heic": heic((color >> 8).astype(np.uint8)), "a.jxl": jxl(color), "a.dng": dng(color[..., 0])}


def test_heic_keeps_depth_profile_and_notes(color):
    rgba = np.concatenate([color >> 8, color[..., :1] >> 8], axis=2).astype(np.uint8)
    picture = only(heic(rgba, icc_profile=P3, exif=exif(1).tobytes(), xmp=XMP))
    assert np.array_equal(picture.color, rgba[..., :3])
    assert np.array_equal(picture.alpha, rgba[..., 3])
    assert picture.icc == P3
    assert picture.xmp == XMP
    assert b"Some maker" in picture.exif
    deep = only(heic(color)).color
    assert deep.dtype == np.uint16
    assert np.abs(deep.astype(int) - color).max() < 128  # 10 bits


@pytest.mark.parametrize(("transfer", "coding"), [(16, Coding(9, 16)), (18, Coding(9, 18)), (13, None)])
def test_heic_keeps_its_coding(color, transfer, coding):
    picture = only(heic(color, color_primaries=9, transfer_characteristics=transfer))
    assert picture.coding == coding
    assert (picture.icc is None) == (coding is not None)  # primaries of BT.2020 become a profile


def test_a_heic_is_turned_once(color):
    values = (color >> 8).astype(np.uint8)
    assert np.array_equal(only(heic(values, exif=exif(6).tobytes())).color, np.rot90(values, -1))


def test_a_heic_that_alpha_is_multiplied_into():
    values = np.array([[[100, 50, 0, 128], [40, 40, 40, 255], [0, 0, 0, 0]]], np.uint8)
    picture = _picture(values, None, premultiplied=True)
    assert picture.color[0].tolist() == [[199, 100, 0], [40, 40, 40], [0, 0, 0]]
    assert _picture(values, None, premultiplied=False).color[0, 0].tolist() == [100, 50, 0]


def test_the_first_picture_of_a_heic_is_read(color, caplog):
    values = (color >> 8).astype(np.uint8)
    assert np.array_equal(only(heic(values, values[::-1])).color, values)
    assert caplog.messages == ["The picture: its first picture alone is read"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_jxl_keeps_every_value(color, channels, dtype):
    values = np.concatenate([color, color[..., :1]], axis=2)[..., :channels]
    values = (
        (values / 65535).astype(dtype) if dtype is np.float32 else (values >> (8 * (dtype is np.uint8))).astype(dtype)
    )
    block = exif(6).tobytes().removeprefix(b"Exif\0\0")
    picture = only(jxl(values, exif=block, xmp=XMP))
    count = channels - (channels % 2 == 0)
    assert picture.color.dtype == dtype
    assert np.array_equal(picture.color, values[..., :count])
    assert (picture.alpha is None) == (channels % 2 == 1)
    assert picture.alpha is None or np.array_equal(picture.alpha, values[..., -1])
    assert picture.color.shape[:2] == (48, 64)  # only the codestream turns it
    assert b"Some maker" in picture.exif
    assert picture.xmp == XMP


def test_jxl_keeps_its_profile(color):
    assert only(jxl(color)).icc is None  # sRGB
    assert only(jxl(color, icc=P3)).icc == P3
    assert only(jxl(color, icc=P3, lossless=False)).icc == P3
    for transfer in (16, 18):
        picture = only(jxl(color, icc=with_cicp(P3, 12, transfer)))
        assert (picture.coding, picture.icc) == (Coding(12, transfer), None)


def test_an_animated_jxl_is_refused():
    # An image header of 8 x 8 pixels: small size, no ratio, width; not all as usual; more fields; orientation; no
    # intrinsic size; no preview; an animation.
    bits = [1, *[0] * 5, *[0] * 3, *[0] * 5, 0, 1, 0, 0, 0, 0, 0, 1]
    packed = np.packbits(bits, bitorder="little").tobytes()
    assert is_jxl(b"\xff\x0a" + packed)
    assert _is_animation(b"\xff\x0a" + packed)
    boxed = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14jxlp\0\0\0\0" + b"\xff\x0a" + packed + bytes(10)
    assert _is_animation(boxed)
    bits[-1] = 0
    assert not _is_animation(b"\xff\x0a" + np.packbits(bits, bitorder="little").tobytes())


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, -1), (3, 2)])
def test_raw_is_developed_to_16_bits_and_turned(orientation, turns):
    light = np.full((64, 96), 0.1)
    light[:, 48:] = 0.4
    light[:4] = 1
    picture = only(dng(np.rint(light * 65535).astype(np.uint16), orientation))
    assert picture.color.dtype == np.uint16
    assert picture.icc is None
    upright = np.rot90(picture.color, -turns) / 65535
    assert upright.shape == (64, 96, 3)
    srgb = 1.055 * np.array([0.1, 0.4]) ** (1 / 2.4) - 0.055
    for row, column, value in ((40, 20, srgb[0]), (40, 80, srgb[1]), (1, 40, 1)):
        assert np.abs(upright[row, column] - value).max() < 0.01
    assert b"Some maker" in picture.exif
    assert b"Test camera" not in picture.exif  # what describes the mosaic


def test_a_raw_file_is_known_by_its_content(color, tmp_path):
    (tmp_path / "a.tif").write_bytes(dng(color[..., 0]))
    assert read_file(tmp_path / "a.tif").format == "RAW"


@pytest.mark.parametrize("name", ["a.heic", "a.jxl", "a.dng"])
def test_from_the_command_line_to_png(x2_model, color, tmp_path, capsys, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(examples(color)[name])
    command = ["upscale", str(tmp_path / "in"), "--model", str(x2_model), "-o"]
    assert cli.main([*command, str(tmp_path / "out")]) == 0
    assert "1 HEIC, JPEG XL or raw: written as PNG" in capsys.readouterr().err
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == (128, 96)
    single = ["upscale", str(tmp_path / "in" / name), "--model", str(x2_model), "-o", str(tmp_path / "b.png")]
    assert cli.main([*single, "--stream"]) == 1
    assert "Leave out --stream" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.heic", "a.jxl", "a.dng"])
def test_limits_and_damage(color, name):
    content = examples(color)[name]
    with pytest.raises(ImageTooLargeError, match="3,072 pixels; the limit is 3,000"):
        read_bytes(content, max_pixels=3000)
    with pytest.raises(ImageReadError, match="damaged or truncated"):
        read_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(("name", "module"), [("a.heic", "pillow_heif"), ("a.jxl", "pyjpegxl"), ("a.dng", "rawpy")])
def test_without_the_extra_the_message_names_the_command(color, monkeypatch, name, module):
    content = examples(color)[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError) as caught:
        read_bytes(content)
    assert str(caught.value).endswith(f"Install it with: {install_command('formats')}")
    assert f"needs {module}" in str(caught.value)


def test_every_suffix_is_on_the_page():
    page = (Path(__file__).resolve().parents[2] / "docs" / "pictures.md").read_text()
    assert [suffix for suffix in EXTRA_SUFFIXES if f"`{suffix}`" not in page] == []
