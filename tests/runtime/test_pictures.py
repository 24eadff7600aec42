"""Pictures as people have them: real files in, real files out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence
from press_profile import cmyk_profile

from runtime import SuperResolver, cli, errors
from runtime.pictures.picture import Picture, from_pil, network_input
from runtime.pictures.read import ImageFile, read_bytes, read_file, read_still
from runtime.pictures.write import WriteOptions, suffix_of_format, write_bytes, write_file

png = pytest.importorskip("png", reason="needs pypng, of the test extra")
tifffile = pytest.importorskip("tifffile")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def upscale(x2_model, tmp_path):
    """Runs `ignn upscale` on one file; gives the result's path."""

    def run(source: Path, suffix: str = ".png", *arguments: str, code: int = 0) -> Path:
        target = tmp_path / f"result{suffix}"
        assert cli.main(["upscale", str(source), "-o", str(target), "--model", str(x2_model), *arguments]) == code
        return target

    return run


@pytest.fixture
def deep() -> np.ndarray:
    """(20, 30, 4) uint16: smooth, opaque for the most part."""
    y, x = np.mgrid[0:20, 0:30]
    planes = [x * 2100 + y, y * 3200 + x * 3, (x + y) * 1300 + 7, np.full_like(x, 65535)]
    values = np.stack(planes, axis=2).astype(np.uint16)
    values[:5, :5, 3] = 1234
    return values


def write_png(path: Path, values: np.ndarray) -> Path:
    """A 16-bit PNG by an independent writer."""
    channels = values.shape[2]
    writer = png.Writer(values.shape[1], values.shape[0], bitdepth=16, greyscale=channels < 3, alpha=channels in (2, 4))
    with path.open("wb") as file:
        writer.write(file, values.reshape(len(values), -1).tolist())
    return path


def read_png(path: Path) -> np.ndarray:
    """A PNG by an independent reader."""
    width, height, rows, info = png.Reader(filename=str(path)).read()
    kind = np.uint16 if info["bitdepth"] == 16 else np.uint8
    return np.array([np.array(row, kind) for row in rows]).reshape(height, width, info["planes"])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png(upscale, resolver, tmp_path, deep, channels):
    values = {1: deep[..., :1], 2: deep[..., [0, 3]], 3: deep[..., :3], 4: deep}[channels]
    source = write_png(tmp_path / "deep.png", values)
    picture = read_still(source)
    color = values[..., : 1 if channels < 3 else 3]
    assert np.array_equal(picture.color, color)
    if channels in (2, 4):
        assert np.array_equal(picture.alpha, values[..., -1])
    result = read_png(upscale(source))
    assert result.dtype == np.uint16
    assert result.shape == (40, 60, channels)
    assert len(np.unique(result[..., 0])) > 256
    if channels in (1, 3):
        assert np.array_equal(result, resolver(values))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_tiff(upscale, resolver, tmp_path, deep, compression, byteorder, channels):
    values = deep[..., :channels]
    tifffile.imwrite(
        tmp_path / "deep.tif",
        values[..., 0] if channels == 1 else values,
        photometric="minisblack" if channels == 1 else "rgb",
        extrasamples=["unassalpha"] if channels == 4 else None,
        compression=compression,
        predictor=compression is not None,
        byteorder=byteorder,
    )
    picture = read_still(tmp_path / "deep.tif")
    assert np.array_equal(picture.color, values[..., :3])
    result = tifffile.imread(upscale(tmp_path / "deep.tif", ".tif"))
    assert result.dtype == np.uint16
    assert len(np.unique(result)) > 256
    if channels == 3:
        assert np.array_equal(result, resolver(values))
    if channels == 4:
        assert result.shape == (40, 60, 4)


def test_sixteen_bits_to_jpeg_are_reduced_with_a_word(upscale, tmp_path, deep, caplog):
    result = upscale(write_png(tmp_path / "deep.png", deep[..., :3]), ".jpg")
    assert "reduced to 8 bits" in caplog.text
    assert Image.open(result).mode == "RGB"


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "LA", "RGBA"])
def test_modes(upscale, resolver, sample, tmp_path, mode):
    image = Image.open(sample).convert(mode)
    image.save(tmp_path / "in.png")
    result = Image.open(upscale(tmp_path / "in.png"))
    assert result.size == (450, 300)
    assert result.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
    assert np.array_equal(np.asarray(result), np.asarray(resolver(Image.open(tmp_path / "in.png"))))


def test_palette_with_transparency(upscale, tmp_path):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 8, 16))
    image.save(tmp_path / "in.png", transparency=1)
    result = np.asarray(Image.open(upscale(tmp_path / "in.png")))
    assert result.shape == (32, 32, 4)
    assert result[16, 4, 3] < 20
    assert result[16, 28, 3] > 235


@pytest.mark.parametrize("hidden", [0, 255])
def test_no_fringes_around_transparency(hidden):
    """Hidden black or white must not reach the visible edge: the network sees grey all over."""
    color = np.full((40, 40, 3), hidden, np.uint8)
    alpha = np.zeros((40, 40), np.uint8)
    color[10:30, 10:30] = 128
    alpha[10:30, 10:30] = 255
    seen = network_input(Picture(color, alpha))
    assert np.array_equal(seen, np.full((40, 40, 3), 128, np.float32))


def test_hidden_colors_follow_their_surroundings():
    color = np.zeros((32, 64, 3), np.uint8)
    alpha = np.zeros((32, 64), np.uint8)
    color[:, :8], color[:, -8:] = 40, 200
    alpha[:, :8], alpha[:, -8:] = 255, 128
    seen = network_input(Picture(color, alpha))
    assert np.array_equal(seen[:, :8], color[:, :8])
    assert (seen[:, 8:12] < 100).all()
    assert (seen[:, -12:-8] > 140).all()
    assert np.array_equal(network_input(Picture(color, np.zeros_like(alpha))), np.zeros((32, 64, 3), np.float32))


def test_alpha_is_resized_by_lanczos(resolver, sample):
    rgba = np.asarray(Image.open(sample).convert("RGBA")).copy()
    rgba[..., 3] = np.linspace(0, 255, rgba.shape[1]).astype(np.uint8)
    result = resolver(rgba)
    expected = Image.fromarray(rgba[..., 3]).resize((450, 300), Image.Resampling.LANCZOS)
    assert np.abs(result[..., 3].astype(int) - np.asarray(expected)).max() <= 1


def test_transparency_into_jpeg(upscale, tmp_path, capsys):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "in.png")
    upscale(tmp_path / "in.png", ".jpg", code=1)
    assert "--background" in capsys.readouterr().err
    result = Image.open(upscale(tmp_path / "in.png", ".jpg", "--background", "white"))
    assert np.asarray(result).min() > 250


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_applied_once(upscale, sample, tmp_path, orientation, suffix):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    source = tmp_path / f"in{suffix}"
    Image.open(sample).resize((44, 30)).save(source, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(source))
    result = Image.open(upscale(source, suffix))
    assert result.size == (upright.width * 2, upright.height * 2)
    assert result.getexif().get(0x0112, 1) == 1
    assert result.getexif()[0x010F] == "Maker"
    expected = np.asarray(upright.convert("RGB"))
    assert np.array_equal(read_still(source).color, expected)


def test_exif_sizes_are_those_of_the_result(upscale, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA002] = 44
    exif.get_ifd(0x8769)[0xA003] = 30
    Image.new("RGB", (44, 30)).save(tmp_path / "in.jpg", exif=exif)
    inner = Image.open(upscale(tmp_path / "in.jpg", ".jpg")).getexif().get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003]) == (88, 60)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
def test_icc_profile_is_kept(upscale, tmp_path, suffix):
    Image.new("RGB", (16, 16), (10, 200, 30)).save(tmp_path / f"in{suffix}", icc_profile=SRGB)
    assert Image.open(upscale(tmp_path / f"in{suffix}", suffix)).info["icc_profile"] == SRGB


def test_icc_profile_of_sixteen_bits_is_kept(upscale, tmp_path, deep):
    write_file(ImageFile([Picture(deep[..., :3], icc=SRGB)], []), tmp_path / "in.png")
    for suffix in (".png", ".tif"):
        assert Image.open(upscale(tmp_path / "in.png", suffix)).info["icc_profile"] == SRGB


def test_cmyk_is_converted_with_a_word(upscale, sample, tmp_path, caplog):
    Image.open(sample).convert("CMYK").save(tmp_path / "in.jpg", quality=95)
    result = Image.open(upscale(tmp_path / "in.jpg", ".jpg"))
    assert result.mode == "RGB"
    assert "CMYK converted" in caplog.text
    seen = from_pil(Image.open(tmp_path / "in.jpg")).color.astype(int)
    assert np.abs(seen - np.asarray(Image.open(sample))).mean() < 12


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_converted_by_its_profile(upscale, tmp_path, caplog, suffix):
    """The profile's inks are green, which no conversion without it would give; the result carries no profile."""
    Image.new("CMYK", (24, 20), (0, 255, 0, 0)).save(tmp_path / f"in{suffix}", icc_profile=cmyk_profile(), quality=95)
    result = Image.open(upscale(tmp_path / f"in{suffix}"))
    assert "CMYK converted to sRGB by its ICC profile" in caplog.text
    assert "icc_profile" not in result.info
    red, green, blue = (int(value) for value in np.asarray(result)[20, 24])
    assert green > red + 20
    assert green > blue + 10
    plain = np.asarray(Image.new("CMYK", (1, 1), (0, 255, 0, 0)).convert("RGB"))[0, 0]
    assert plain[1] == 0


def test_a_profile_that_is_not_one_does_not_cost_the_picture(upscale, tmp_path, caplog):
    Image.new("CMYK", (24, 20), (0, 255, 0, 0)).save(tmp_path / "in.jpg", icc_profile=b"no profile" * 20)
    assert Image.open(upscale(tmp_path / "in.jpg")).mode == "RGB"
    assert "the ICC profile is not usable" in caplog.text


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_all_frames_of_an_animation(upscale, resolver, sample, tmp_path, suffix):
    photograph = Image.open(sample).resize((60, 40))
    frames = [photograph.rotate(30 * index) for index in range(5)]
    source = tmp_path / f"in{suffix}"
    lossless = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(
        source, save_all=True, append_images=frames[1:], duration=[100, 200, 300, 400, 500], loop=3, **lossless
    )
    arguments = ("--lossless",) if suffix == ".webp" else ()
    result = Image.open(upscale(source, suffix, *arguments))
    assert result.n_frames == 5  # type: ignore[attr-defined]
    sizes, durations = [], []
    for frame in ImageSequence.Iterator(result):
        frame.load()
        sizes.append(frame.size)
        durations.append(round(frame.info["duration"]))
    assert sizes == [(120, 80)] * 5
    assert durations == [100, 200, 300, 400, 500]
    if suffix != ".avif":
        assert result.info["loop"] == Image.open(source).info["loop"]
    if suffix in (".webp", ".png"):  # without loss
        for index, frame in enumerate(frames):
            result.seek(index)
            assert np.array_equal(np.asarray(result.convert("RGB")), np.asarray(resolver(frame)))


def test_an_animation_with_transparency(upscale, tmp_path):
    frames = []
    for index in range(3):
        frame = Image.new("RGBA", (24, 24))
        frame.paste((255, 0, 0, 255), (index * 8, 0, index * 8 + 8, 24))
        frames.append(frame)
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=100, disposal=2, loop=0)
    result = Image.open(upscale(tmp_path / "in.gif", ".gif"))
    assert result.n_frames == 3  # type: ignore[attr-defined]
    for index in range(3):
        result.seek(index)
        alpha = np.asarray(result.convert("RGBA"))[24, :, 3]
        assert alpha[index * 16 + 8] == 255
        assert alpha[(index * 16 + 32) % 48] == 0


def test_an_animation_into_a_still_format(upscale, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(
        tmp_path / "in.gif", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")], duration=100
    )
    upscale(tmp_path / "in.gif", ".jpg", code=1)
    assert "Use .png" in capsys.readouterr().err
    with pytest.raises(errors.ImageReadError, match="2 frames"):
        read_still(tmp_path / "in.gif")


def test_pages_of_a_tiff(upscale, sample, tmp_path):
    small = Image.open(sample).resize((30, 20))
    small.save(tmp_path / "in.tif", save_all=True, append_images=[small.resize((10, 12)).convert("L")])
    result = Image.open(upscale(tmp_path / "in.tif", ".tif"))
    assert result.n_frames == 2  # type: ignore[attr-defined]
    result.seek(1)
    assert (result.size, result.mode) == ((20, 24), "L")


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".png", ".gif", ".JPG"])
def test_formats(upscale, resolver, sample, tmp_path, suffix):
    Image.open(sample).save(tmp_path / f"in{suffix}")
    result = Image.open(upscale(tmp_path / f"in{suffix}", suffix))
    expected = np.asarray(resolver(Image.open(tmp_path / f"in{suffix}"))).astype(float)
    assert result.size == (450, 300)
    assert np.abs(np.asarray(result.convert("RGB")) - expected).mean() < 4


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_quality(upscale, sample, suffix):
    sizes = [upscale(sample, suffix, "--quality", quality).stat().st_size for quality in ("20", "60", "95")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_decompression_bombs(tmp_path, monkeypatch):
    Image.new("1", (2000, 1000)).save(tmp_path / "wide.png")
    with pytest.raises(errors.ImageTooLargeError, match="--max-pixels 2000000"):
        read_file(tmp_path / "wide.png", max_pixels=1_999_999)
    assert read_still(tmp_path / "wide.png", max_pixels=2_000_000).color.shape == (1000, 2000, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
    with pytest.raises(errors.ImageTooLargeError, match="max-pixels"):
        read_file(tmp_path / "wide.png")
    assert read_still(tmp_path / "wide.png", max_pixels=2_000_000).color.shape == (1000, 2000, 1)
    assert Image.MAX_IMAGE_PIXELS == 500_000


def test_frames_are_bombs_together(tmp_path):
    """Pages of a TIFF after a small first one, and animations of many frames."""
    Image.new("L", (4, 4)).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.new("L", (300, 300))])
    frames = [Image.new("L", (100, 100), level) for level in range(30)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    for name, pixels in (("pages.tif", 90_016), ("moving.png", 300_000)):
        assert len(read_file(tmp_path / name, max_pixels=pixels).frames) > 1
        with pytest.raises(errors.ImageTooLargeError, match=f"--max-pixels {pixels}"):
            read_file(tmp_path / name, max_pixels=pixels - 1)


def test_a_damaged_exif_block_does_not_cost_the_picture(upscale, sample, tmp_path):
    Image.open(sample).save(tmp_path / "in.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 20)
    assert Image.open(upscale(tmp_path / "in.jpg", ".jpg")).size == (450, 300)


def test_nothing_is_left_of_a_write_that_fails(tmp_path, photograph, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *arguments, **named: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(errors.ImageWriteError, match="No space"):
        write_file(ImageFile([Picture(photograph)], []), tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_write_options():
    with pytest.raises(errors.UsageError, match="quality"):
        WriteOptions(quality=101)
    with pytest.raises(errors.UsageError, match="background"):
        WriteOptions(background="nosuchcolor")


def test_sixteen_bit_color_as_pil_is_reduced_with_a_word(x2_model, tmp_path, deep, caplog):
    with caplog.at_level(logging.WARNING, "ignn"):
        result = SuperResolver(x2_model)(write_png(tmp_path / "deep.png", deep[..., :3]))
    assert result.mode == "RGB"
    assert "16-bit" in caplog.text


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif"])
def test_bytes_are_read_and_written_as_files_are(photograph, tmp_path, suffix):
    path = tmp_path / f"in{suffix}"
    Image.fromarray(photograph).save(path, icc_profile=SRGB)
    content = read_bytes(path.read_bytes())
    of_file = read_file(path)
    assert content.format == of_file.format
    assert np.array_equal(content.frames[0].color, of_file.frames[0].color)
    assert content.frames[0].icc == of_file.frames[0].icc
    assert suffix_of_format(content.format) == suffix
    write_file(content, tmp_path / f"out{suffix}")
    assert write_bytes(content, suffix) == (tmp_path / f"out{suffix}").read_bytes()


def test_sixteen_bits_in_memory(tmp_path, deep):
    path = write_png(tmp_path / "deep.png", deep)
    content = read_bytes(path.read_bytes())
    assert np.array_equal(content.frames[0].color, deep[..., :3])
    assert np.array_equal(content.frames[0].alpha, deep[..., 3])
    for suffix in (".png", ".tif"):
        (tmp_path / f"again{suffix}").write_bytes(write_bytes(content, suffix))
        assert np.array_equal(read_file(tmp_path / f"again{suffix}").frames[0].color, deep[..., :3])


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x89PNG\r\n\x1a\n"])
def test_errors_about_bytes_speak_of_what_the_user_gave(data):
    with pytest.raises(errors.ImageReadError, match=r"^cat\.png is "):
        read_bytes(data, name="cat.png")


def test_truncated_and_large_pictures_in_memory(sample):
    whole = sample.read_bytes()
    with pytest.raises(errors.ImageReadError, match=r"^The picture is damaged or truncated"):
        read_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.ImageTooLargeError, match=r"^The picture has .* the limit is 10\."):
        read_bytes(whole, max_pixels=10)


def test_bytes_of_a_format_that_cannot_hold_them(deep):
    content = ImageFile([Picture(deep[..., :3], deep[..., 3])], [])
    with pytest.raises(errors.ImageWriteError, match=r"^the result: JPEG holds no transparency"):
        write_bytes(content, ".jpg")
    with pytest.raises(errors.ImageWriteError, match=r"Invalid output suffix \(\.doc\)"):
        write_bytes(content, ".doc")
    assert suffix_of_format("PCX") == ".png"
    assert suffix_of_format("MPO") == ".jpg"
