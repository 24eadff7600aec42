"""What a call takes, and what it says of anything else."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import SuperResolver, errors
from runtime.pictures.read import read_bytes
from runtime.pictures.write import write_bytes


def test_bytes_and_open_files_are_files(resolver, sample, photograph):
    data = sample.read_bytes()
    expected = resolver(photograph)
    with sample.open("rb") as opened:
        for image in (data, bytearray(data), memoryview(data), io.BytesIO(data), opened):
            result = resolver(image)
            assert isinstance(result, Image.Image)
            assert np.array_equal(np.asarray(result), expected)
        with resolver.map([data, io.BytesIO(data)]) as results:
            assert [result.size for result in results] == [(450, 300)] * 2
    for image in (opened, sample.open()):
        with pytest.raises(errors.IgnnError, match=r"cannot be read|binary mode"):
            resolver(image)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_and_a_memory_map_are_arrays(resolver, photograph, tmp_path):
    grey = photograph[:20, :30, 0]
    expected = resolver(grey)
    stored = np.memmap(tmp_path / "grey", np.uint8, "w+", shape=grey.shape)
    stored[:] = grey
    for image in (np.matrix(grey), stored):
        result = resolver(image)
        assert type(result) is np.ndarray
        assert np.array_equal(result, expected)
    with pytest.raises(errors.InvalidImageError, match=r"image\.filled"):
        resolver(np.ma.masked_less(grey, 100))


@pytest.mark.parametrize("image", [None, 7, object(), {"a": 1}, [Image.new("L", (2, 2))], ("a.png", "b.png"), [[1, 2]]])
def test_other_things_are_refused_with_what_is_accepted(resolver, image):
    with pytest.raises(errors.InvalidImageError, match="a path, the bytes of an image file") as caught:
        resolver(image)
    if isinstance(image, (list, tuple)):
        assert "resolver.map(images)" in str(caught.value)
    with resolver.map([image]) as results, pytest.raises(errors.InvalidImageError):
        next(results)


@pytest.mark.parametrize("images", [None, 7, "photo.jpg", Path("photo.jpg"), b"", Image.new("L", (2, 2))])
def test_what_is_no_stream_of_images(resolver, images):
    with pytest.raises(errors.UsageError, match="An iterable of images is expected"):
        resolver.map(images)


def test_closed_and_truncated_pil_images(resolver, sample, tmp_path):
    memory, file = Image.new("RGB", (4, 4)), Image.open(sample)
    for image in (memory, file):
        image.close()
        with pytest.raises(errors.InvalidImageError, match="image is closed"):
            resolver(image)
    (tmp_path / "cut.png").write_bytes(sample.read_bytes()[:20000])
    with Image.open(tmp_path / "cut.png") as image, pytest.raises(errors.ImageReadError, match=r"cut\.png is damaged"):
        resolver(image)
    with Image.open(io.BytesIO(sample.read_bytes()[:20000])) as image, pytest.raises(errors.ImageReadError):
        resolver(image)


def test_floats_that_miss_the_range_by_rounding(resolver):
    values = np.random.default_rng(0).random((8, 9, 3))
    values[0, 0], values[1, 1] = 1.0000001, -1e-7
    assert np.array_equal(resolver(values), resolver(values.clip(0, 1)))
    values[0, 0] = 1.25
    with pytest.raises(errors.InvalidImageError, match=re.escape("to 1.25; 0..1 is expected. Clamp them with np.clip")):
        resolver(values)
    values[0, 0] = 255
    with pytest.raises(errors.InvalidImageError, match=r"to 255; 0\.\.1 is expected\. Divide by 255"):
        resolver(values)


@pytest.mark.parametrize("lr", [None, "a.png", np.zeros((4, 4)), np.zeros((3, 4, 4)), np.zeros((0, 4, 3)), [[["x"]]]])
def test_input_of_the_network_itself(resolver, lr):
    with pytest.raises(errors.InvalidImageError, match=r"\(H, W, 3\)"):
        resolver.super_resolve(lr)


@pytest.mark.parametrize(
    "arguments",
    [{"threads": 99_999_999}, {"halo": "8"}, {"halo": 1.5}, {"max_pixels": "1"}, {"scale": "2"}, {"model": 3},
     {"model": b"m.onnx"}, {"engine": 3}],
)  # fmt: skip
def test_arguments_of_the_wrong_type(x2_model, arguments):
    with pytest.raises(errors.UsageError, match=f"Invalid {next(iter(arguments))}"):
        SuperResolver(**{"model": x2_model} | arguments)


def test_errors_of_bytes_name_what_the_user_named(sample):
    with pytest.raises(errors.ImageReadError, match=r"^upload\.png is damaged or truncated"):
        read_bytes(sample.read_bytes()[:20000], name="upload.png")
    picture = read_bytes(sample.read_bytes())
    with pytest.raises(errors.ImageWriteError, match=r"\(\.doc\) of upload\.doc"):
        write_bytes(picture, ".doc", name="upload")
