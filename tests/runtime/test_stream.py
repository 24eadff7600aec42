"""Pictures that stream from and to disk."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from press_profile import cmyk_profile

from runtime import SuperResolver, cli, errors
from runtime.clone import install_command
from runtime.commands.stream import upscale_stream
from runtime.pictures.read import read_still

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pyvips", reason=f"needs pyvips: {install_command('stream')}")


@pytest.mark.parametrize("target", ["out.png", "out.tif"])
@pytest.mark.parametrize("source", ["in.jpg", "in.png", "grey.png", "deep.tif", "deep_grey.png", "turned.jpg"])
def test_a_stream_is_what_memory_gives(x2_model, photograph, tmp_path, source, target):
    resolver = SuperResolver(x2_model, tile=32)
    path = tmp_path / source
    image = Image.fromarray(photograph)
    if source == "deep.tif":
        tifffile.imwrite(path, photograph.astype(np.uint16) * 251, photometric="rgb", compression="zlib")
    elif source == "deep_grey.png":
        Image.fromarray(photograph[..., 0].astype(np.uint16) * 251).save(path)
    elif source == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif, quality=100, subsampling=0)
    else:
        (image.convert("L") if source == "grey.png" else image).save(path)
    calls = []
    upscale_stream(resolver, path, tmp_path / target, progress=lambda *done: calls.append(done))
    expected = resolver.upscale(read_still(path)).color
    result = read_still(tmp_path / target).color
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    # libvips and Pillow may round differently in decoding JPEG.
    assert np.abs(result.astype(int) - expected).max() <= (6 if path.suffix == ".jpg" else 0)
    assert calls[-1][0] == calls[-1][1] > 1


def test_blended_tiles_stream_as_well(x2_model, photograph, tmp_path):
    Image.fromarray(photograph).save(tmp_path / "in.png")
    resolver = SuperResolver(x2_model, tile=32, halo=4)
    upscale_stream(resolver, tmp_path / "in.png", tmp_path / "out.png")
    assert np.array_equal(read_still(tmp_path / "out.png").color, resolver(photograph))


def test_a_stream_of_cmyk_goes_by_its_profile(x2_model, tmp_path):
    Image.new("CMYK", (40, 50), (0, 255, 0, 0)).save(tmp_path / "in.tif", icc_profile=cmyk_profile())
    upscale_stream(SuperResolver(x2_model, tile=32), tmp_path / "in.tif", tmp_path / "out.png")
    expected = SuperResolver(x2_model).upscale(read_still(tmp_path / "in.tif")).color
    assert np.abs(read_still(tmp_path / "out.png").color.astype(int) - expected).max() <= 6  # libvips rounds otherwise


def test_what_cannot_be_streamed(x2_model, sample, tmp_path, capsys):
    Image.open(sample).convert("RGBA").save(tmp_path / "alpha.png")
    (tmp_path / "cut.png").write_bytes(sample.read_bytes()[:20000])
    (tmp_path / "text.png").write_text("hello")
    for name, target, message in [
        ("alpha.png", "o.png", "--background"),
        ("cut.png", "o.png", "damaged or truncated"),
        ("text.png", "o.png", "not an image"),
        ("absent.png", "o.png", "There is no file"),
        ("alpha.png", "o.jpg", "Use .png or .tif"),
    ]:
        arguments = [
            "upscale",
            str(tmp_path / name),
            "-o",
            str(tmp_path / target),
            "--stream",
            "--model",
            str(x2_model),
        ]
        assert cli.main(arguments) == 1
        assert message in capsys.readouterr().err
        assert not list(tmp_path.glob("*o.*"))
    assert cli.main([*arguments[:3], str(tmp_path / "o.png"), *arguments[4:], "--background", "#fff"]) == 0


def test_streaming_and_turning_exclude_each_other(x2_model, sample, tmp_path):
    with pytest.raises(errors.IgnnError, match="self-ensemble"):
        upscale_stream(SuperResolver(x2_model, self_ensemble=True), sample, tmp_path / "o.png")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of a process as Linux counts it")
def test_memory_does_not_grow_with_the_picture():
    """The peak of a picture of 4 times the height is that of the smaller one, but for a little.

    On a machine with much else to do the peak differs by up to 80 MB from run to run: the lowest of three counts.
    """
    peaks: dict[int, list[int]] = {1500: [], 6000: []}
    for _ in range(3):
        for height, measured in peaks.items():
            command = [sys.executable, str(Path(__file__).with_name("stream_memory.py")), "--width", "1500"]
            result = subprocess.run([*command, "--height", str(height)], capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            found = re.fullmatch(rf"1500 x {height} to 3000 x {2 * height}: peak (\d+) MB, \d+ s\n", result.stdout)
            assert found, result.stdout
            measured.append(int(found[1]))
        if min(peaks[6000]) - min(peaks[1500]) < 40:  # MB; the larger result alone has 108
            return
    pytest.fail(f"{peaks} MB")


def test_limit_of_pixels(x2_model, sample, tmp_path):
    with pytest.raises(errors.ImageTooLargeError, match="max-pixels"):
        upscale_stream(SuperResolver(x2_model), sample, tmp_path / "o.png", max_pixels=1000)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_what_is_said_beside_the_pixels_is_kept(resolver, photograph, tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif.get_ifd(0x8769)[0xA002] = 6, "Maker", 30
    Image.fromarray(photograph[:20, :30]).save(tmp_path / "in.jpg", exif=exif, xmp=b"<x/>", dpi=(300, 300))
    upscale_stream(resolver, tmp_path / "in.jpg", tmp_path / f"out{suffix}")
    result = Image.open(tmp_path / f"out{suffix}")
    assert result.size == (40, 60)
    assert result.getexif()[0x010F] == "Maker"
    assert result.getexif().get(0x0112, 1) == 1
    assert result.getexif().get_ifd(0x8769)[0xA002] == 40
    assert result.info["xmp"] == b"<x/>"
    assert round(float(result.info["dpi"][0])) == 300


@pytest.mark.parametrize("profile", [False, True])
def test_cmyk_is_converted_as_in_memory(resolver, photograph, tmp_path, profile):
    named = {"icc_profile": cmyk_profile()} if profile else {}
    Image.fromarray(photograph[:20, :30]).convert("CMYK").save(tmp_path / "in.tif", **named)
    upscale_stream(resolver, tmp_path / "in.tif", tmp_path / "out.png")
    expected = resolver.upscale(read_still(tmp_path / "in.tif")).color.astype(int)
    result = Image.open(tmp_path / "out.png")
    assert np.abs(np.asarray(result) - expected).max() <= 3
    assert "icc_profile" not in result.info
