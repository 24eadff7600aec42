"""Image files of unusual kinds: each once came out wrong, or not at all."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from runtime import cli, errors
from runtime.commands import compare
from runtime.pictures.picture import Picture, from_pil
from runtime.pictures.read import ImageFile, read_bytes, read_file, read_still
from runtime.pictures.write import write_file

png = pytest.importorskip("png", reason="needs pypng, of the test extra")
tifffile = pytest.importorskip("tifffile")


def write_psd(path: Path, values: np.ndarray) -> Path:
    """A flattened Photoshop file: no layers."""
    height, width, channels = values.shape
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, channels, height, width, 8, 3)
    planes = np.moveaxis(values, 2, 0).tobytes()
    path.write_bytes(header + bytes(12) + struct.pack(">H", 0) + planes)
    return path


def test_a_flattened_psd(photograph, tmp_path):
    source = write_psd(tmp_path / "in.psd", photograph[:20, :30])
    assert np.array_equal(read_still(source).color, photograph[:20, :30])
    sheet = tmp_path / "sheet.png"
    assert compare.main([str(source), str(source), "-o", str(sheet)]) == 0


def test_a_psd_does_not_end_a_batch(x2_model, photograph, tmp_path):
    (tmp_path / "in").mkdir()
    write_psd(tmp_path / "in" / "a.psd", photograph[:20, :30])
    Image.fromarray(photograph[:20, :30]).save(tmp_path / "in" / "b.png")
    inputs = [str(tmp_path / "in" / name) for name in ("a.psd", "b.png")]
    assert cli.main(["upscale", *inputs, "-o", str(tmp_path / "out"), "--model", str(x2_model)]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"a.png", "b.png"}


def test_nearly_transparent_pixels_are_transparent_in_gif(tmp_path):
    color = np.full((8, 8, 3), 200, np.uint8)
    alpha = np.tile(np.array([0, 1, 3, 127, 128, 200, 254, 255], np.uint8), (8, 1))
    write_file(ImageFile([Picture(color, alpha)], []), tmp_path / "out.gif")
    result = np.asarray(Image.open(tmp_path / "out.gif").convert("RGBA"))[..., 3]
    assert result[0].tolist() == [0, 0, 0, 0, 255, 255, 255, 255]


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_sixteen_bit_cmyk_tiff_is_converted(tmp_path, caplog, byteorder, planes):
    inks = np.zeros((12, 16, 4), np.uint16)
    inks[..., 1] = 65535  # magenta
    values = inks if planes == "contig" else np.moveaxis(inks, 2, 0)
    named = {"photometric": "separated", "planarconfig": planes, "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "in.tif", values, **named)
    picture = read_still(tmp_path / "in.tif")
    assert picture.alpha is None
    assert picture.color[6, 8].tolist() == [255, 0, 255]
    assert "CMYK converted" in caplog.text


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_color_of_a_sixteen_bit_png(tmp_path, channels):
    values = np.arange(6 * 7 * channels, dtype=np.uint16).reshape(6, 7, channels) + 300
    transparent = values[2, 3].tolist()
    with (tmp_path / "in.png").open("wb") as file:
        writer = png.Writer(7, 6, bitdepth=16, greyscale=channels == 1, transparent=transparent)
        writer.write(file, values.reshape(6, -1).tolist())
    picture = read_still(tmp_path / "in.png")
    assert np.array_equal(picture.color, values)
    assert picture.alpha.dtype == np.uint16
    assert np.argwhere(picture.alpha == 0).tolist() == [[2, 3]]
    assert np.unique(picture.alpha).tolist() == [0, 65535]


def test_a_palette_with_alpha(x2_model, tmp_path):
    from runtime import SuperResolver

    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255], "RGBA")
    image.paste(1, (0, 0, 8, 16))
    result = SuperResolver(x2_model)(image)
    assert result.mode == "RGBA"
    assert result.getpixel((4, 16))[3] > 235
    assert result.getpixel((28, 16))[3] < 20


def test_colors_multiplied_by_a_sixteen_bit_alpha_are_divided(tmp_path):
    alpha = np.array([[0, 1000, 32768, 65535]], np.uint16)
    straight = np.full((1, 4, 3), 50_000.0)
    multiplied = np.rint(straight * alpha[..., None] / 65535).astype(np.uint16)
    values = np.concatenate([multiplied, alpha[..., None]], axis=2)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb", extrasamples=["assocalpha"])
    picture = read_still(tmp_path / "in.tif")
    assert np.array_equal(picture.alpha, alpha)
    assert np.abs(picture.color[0, 1:].astype(int) - 50_000).max() <= 33


def test_frames_of_different_extent(x2_model, tmp_path):
    """The second frame reaches beyond the first one's canvas; what is written is decoded by an independent reader."""
    small, large = Image.new("P", (10, 12), 1), Image.new("P", (20, 16), 1)
    parts = []
    for image in (small, large):
        image.putpalette([0, 0, 0, 250, 20, 30])
        image.save(tmp_path / "part.gif")
        parts.append((tmp_path / "part.gif").read_bytes())
    table = 13 + 3 * 2 ** ((parts[1][10] & 7) + 1)
    (tmp_path / "in.gif").write_bytes(parts[0][:-1] + parts[1][table:])
    assert len({frame.color.shape for frame in read_file(tmp_path / "in.gif").frames}) == 1
    arguments = ["upscale", str(tmp_path / "in.gif"), "--model", str(x2_model), "-o", str(tmp_path / "out.png")]
    assert cli.main(arguments) == 0
    result = Image.open(tmp_path / "out.png")
    frames = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(result)]
    assert [frame.shape for frame in frames] == [(32, 40, 4)] * 2
    assert frames[0][28, 36, 3] < 20
    assert frames[1][28, 36, 3] > 235


def loop_of(path: Path) -> int | None:
    """What a file says about its loops, by Pillow: GIF counts repetitions, PNG and WebP times."""
    return Image.open(path).info.get("loop")


@pytest.mark.parametrize(("gif", "times"), [(None, 1), (0, 0), (1, 2), (2, 3)])
def test_animations_are_shown_as_often_as_before(tmp_path, gif, times):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    named = {} if gif is None else {"loop": gif}
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=50, **named)
    content = read_file(tmp_path / "in.gif")
    assert content.loop == times
    for suffix, said in ((".gif", gif), (".png", times), (".webp", times)):
        write_file(content, tmp_path / f"out{suffix}")
        assert loop_of(tmp_path / f"out{suffix}") == said
        assert read_file(tmp_path / f"out{suffix}").loop == times


def test_the_fallback_of_an_apng_is_no_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:], duration=[70, 90], default_image=True)
    content = read_file(tmp_path / "in.png")
    assert content.durations_ms == [70, 90]
    assert [frame.color[4, 4].tolist() for frame in content.frames] == [[0, 255, 0], [0, 0, 255]]


def deep_apng(frames: list[np.ndarray], *, fallback: bool) -> bytes:
    """An APNG of (H, W, C) frames of uint16; the first one may be for programs that know no animations."""
    height, width, channels = frames[0].shape
    count = len(frames) - fallback

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    content += chunk(b"acTL", struct.pack(">II", count, 0))
    number = 0
    for index, frame in enumerate(frames):
        if index or not fallback:
            content += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0))
            number += 1
        data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in frame))
        content += chunk(b"fdAT", struct.pack(">I", number) + data) if index else chunk(b"IDAT", data)
        number += index > 0
    return content + chunk(b"IEND", b"")


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_apng_of_sixteen_bits_keeps_them_or_says_so(caplog, channels, fallback):
    frames = list(np.random.default_rng(0).integers(0, 65536, (3, 4, 5, channels), np.uint16))
    read = read_bytes(deep_apng(frames, fallback=fallback)).frames
    for expected, frame in zip(frames[fallback:], read, strict=True):
        color = expected[..., :3] if channels == 1 else expected[..., :3] >> 8
        assert np.array_equal(frame.color, color)
    said = ["The picture: animations of 16 bits a channel are read with 8"]
    assert caplog.messages == ([] if channels == 1 else said)


def test_a_bmp_of_sixteen_bits_a_pixel(tmp_path):
    values = np.array([[0xF800, 0x07E0], [0x001F, 0xFFFF]], "<u2")  # RGB565, the last row first
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    file = struct.pack("<2sIHHI", b"BM", 22 + len(header), 0, 0, 14 + len(header)) + header + values.tobytes()
    (tmp_path / "in.bmp").write_bytes(file)
    color = read_still(tmp_path / "in.bmp").color
    assert color.tolist() == [[[0, 0, 255], [255, 255, 255]], [[255, 0, 0], [0, 255, 0]]]


def test_a_refusal_of_the_system_is_no_damage(monkeypatch, sample):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(errors.ImageReadError, match=r"sample\.png cannot be read: Permission denied\.$"):
        read_file(sample)


def test_a_defect_of_ours_is_no_damage(monkeypatch, sample):
    from runtime.pictures import read

    monkeypatch.setattr(read, "frames_of", lambda *_: None)
    with pytest.raises(AttributeError):
        read_file(sample)


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0b.png", "nothing.png"])
def test_names_that_no_file_has(tmp_path, name):
    with pytest.raises(errors.ImageReadError, match=r"cannot be read|There is no file"):
        read_file(tmp_path / name)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_in_planes(tmp_path, channels, compression):
    values = np.random.default_rng(0).integers(0, 65536, (channels, 20, 30), np.uint16)
    extra = ["unassalpha"] if channels == 4 else None
    path = tmp_path / "in.tif"
    tifffile.imwrite(
        path, values, photometric="rgb", planarconfig="separate", extrasamples=extra, compression=compression
    )
    picture = read_still(path)
    assert np.array_equal(picture.color, np.moveaxis(values[:3], 0, 2))
    assert channels == 3 or np.array_equal(picture.alpha, values[3])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".tif", ".pfm"])
def test_floats_stay_floats(x2_model, tmp_path, channels, suffix):
    values = np.random.default_rng(0).random((20, 30, channels), np.float32)
    picture = Picture(values[..., :3], values[..., 3] if channels == 4 else None)
    if suffix == ".pfm" and channels == 4:
        with pytest.raises(errors.ImageWriteError, match="no transparency"):
            write_file(ImageFile([picture], []), tmp_path / "in.pfm")
        return
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_file(ImageFile([picture], []), source)
    assert np.array_equal(read_still(source).color, picture.color)
    assert cli.main(["upscale", str(source), "-o", str(target), "--model", str(x2_model)]) == 0
    result = read_still(target)
    assert result.color.dtype == np.float32
    assert result.color.shape == (40, 60, min(channels, 3))
    assert len(np.unique(result.color)) > 1000


@pytest.mark.parametrize(("suffix", "dtype", "bits"), [(".png", np.uint16, 16), (".bmp", np.uint8, 8)])
def test_floats_into_a_format_without_them(tmp_path, caplog, suffix, dtype, bits):
    values = np.linspace(0, 1, 300, dtype=np.float32).reshape(10, 30, 1)
    write_file(ImageFile([Picture(values)], []), tmp_path / f"out{suffix}")
    result = read_still(tmp_path / f"out{suffix}").color
    assert result.dtype == dtype
    assert np.array_equal(result[..., :1], np.rint(values * np.iinfo(dtype).max))
    assert f"reduced to {bits} bits" in caplog.text


@pytest.mark.parametrize("multiplied", [False, True])
def test_a_float_tiff_of_another_writer(tmp_path, multiplied):
    """White is zero; big-endian; floats of 16 bits; alpha that colors are multiplied by; turned; a resolution."""
    values = np.full((4, 6, 4), 0.25, np.float16)
    values[..., 3] = 0.5
    path = tmp_path / "in.tif"
    tifffile.imwrite(
        path,
        values,
        photometric="rgb",
        extrasamples=["assocalpha" if multiplied else "unassalpha"],
        byteorder=">",
        extratags=[(274, 3, 1, 6, True)],
        resolution=(100, 100),
        resolutionunit="inch",
    )
    picture = read_still(path)
    assert picture.color.shape == (6, 4, 3)
    assert np.unique(picture.color).tolist() == [0.5 if multiplied else 0.25]
    assert picture.dpi == (100, 100)


@pytest.mark.parametrize(
    "content", [b"PF\n3 2\n-1.0\n" + bytes(10), b"Pf\nx\n", b"Pf\n0 0\n1\n", b"PF\n99999 99999\n1\n"]
)
def test_damaged_float_maps(tmp_path, content):
    (tmp_path / "in.pfm").write_bytes(content)
    with pytest.raises(errors.IgnnError, match=r"in\.pfm (is damaged|has)"):
        read_still(tmp_path / "in.pfm")


def test_floats_beyond_white_are_refused_by_name(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", np.full((4, 4), 300, np.float32))
    with pytest.raises(errors.ImageReadError, match=r"in\.tif: Invalid float image: values from 300"):
        read_still(tmp_path / "in.tif")


def test_pages_of_sixteen_bits_stay_deep(tmp_path):
    pages = [Picture(np.full((8, 9, 3), level, np.uint16)) for level in (300, 301)]
    write_file(ImageFile(pages, []), tmp_path / "pages.tif")
    again = read_file(tmp_path / "pages.tif").frames
    assert [page.color[0, 0].tolist() for page in again] == [[300] * 3, [301] * 3]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_a_png_of_few_bits(tmp_path, bits):
    levels = list(range(min(1 << bits, 16)))
    for hidden in levels[:4]:
        with (tmp_path / "in.png").open("wb") as file:
            png.Writer(len(levels), 2, greyscale=True, bitdepth=bits, transparent=hidden).write(file, [levels] * 2)
        for picture in (read_still(tmp_path / "in.png"), from_pil(Image.open(tmp_path / "in.png"))):
            assert picture.color[0, :, 0].tolist() == [level * 255 // ((1 << bits) - 1) for level in levels]
            assert picture.alpha[0].tolist() == [0 if level == hidden else 255 for level in levels]


def test_a_gif_keeps_transparency_behind_an_opaque_frame(tmp_path):
    red, green, blue, nothing = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)
    rows = [[nothing, nothing, red], [red, green, blue], [nothing, nothing, blue]]
    values = [np.array([row], np.uint8) for row in rows]
    frames = [Picture(value[..., :3], value[..., 3]) for value in values]
    write_file(ImageFile(frames, [100, 200, 300]), tmp_path / "out.gif")
    written = read_file(tmp_path / "out.gif").frames
    alphas = [np.full((1, 3), 255) if frame.alpha is None else frame.alpha for frame in written]
    assert [alpha[0].tolist() for alpha in alphas] == [[0, 0, 255], [255, 255, 255], [0, 0, 255]]


def test_an_icon_is_read_whatever_was_read_before(tmp_path, monkeypatch):
    values = np.zeros((256, 256, 3), np.uint8)
    values[..., 0] = np.random.default_rng(0).integers(0, 256, (256, 256))
    Image.fromarray(values).save(tmp_path / "in.ico", sizes=[(256, 256)])
    assert (tmp_path / "in.ico").read_bytes()[16] == 1  # where a TGA has its depth
    Image.init()
    monkeypatch.setattr(Image, "ID", sorted(Image.ID, key=lambda name: name != "TGA"))  # as after a TGA
    assert np.array_equal(read_still(tmp_path / "in.ico").color, values)
