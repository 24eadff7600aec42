"""Networks of others: of any kind that people export, on pictures of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_networks import make_network

from runtime import SuperResolver, cli, errors


def nearest_network(
    path: Path,
    shape: list[object],
    *,
    kind: int = TensorProto.FLOAT,
    channels: int = 3,
    unshuffle: int = 1,
    outputs: int = 1,
) -> Path:
    """Enlarges by 2, by nearest neighbor, so that every pixel is known; with a pixel-unshuffle and back before it."""
    nodes = [
        helper.make_node("SpaceToDepth", ["in"], ["deep"], blocksize=unshuffle),
        helper.make_node("DepthToSpace", ["deep"], ["flat"], blocksize=unshuffle),
        helper.make_node("Resize", ["flat", "", "scales"], ["out"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
        helper.make_node("Identity", ["out"], ["second"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "nearest",
        [helper.make_tensor_value_info("in", kind, shape)],
        [helper.make_tensor_value_info(name, kind, [None] * 4) for name in ("out", "second")[:outputs]],
        [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def enlarge(path: Path, image: np.ndarray, **options: object) -> np.ndarray:
    with SuperResolver(path, scale=2, value_range="0..1", **options) as resolver:
        return resolver(image)


def nearest(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("tile", ["auto", None, 20])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ([None] * 4, {}),
        ([1, 3, "h", "w"], {}),
        ([None] * 4, {"kind": TensorProto.FLOAT16}),
        ([None] * 4, {"unshuffle": 2}),
        ([1, 3, None, None], {"unshuffle": 4}),
        ([1, 3, None, None], {"unshuffle": 8, "kind": TensorProto.FLOAT16}),
    ],
)
def test_every_pixel_is_right(photograph, tmp_path, shape, options, tile):
    path = nearest_network(tmp_path / "m.onnx", shape, **options)
    for height, width in ((37, 51), (1, 1), (64, 48)):
        image = photograph[:height, :width]
        assert np.array_equal(enlarge(path, image, tile=tile), nearest(image))
    assert np.array_equal(enlarge(path, photograph[:21, :33, 0], tile=tile), nearest(photograph[:21, :33, 0]))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 72), (8, 8), (40, None)])
def test_fixed_sizes(photograph, tmp_path, height, width):
    """Tiles of that size, and pictures smaller than it padded."""
    path = nearest_network(tmp_path / "m.onnx", [1, 3, height, width])
    for image in (photograph, photograph[:5, :7], photograph[:64, :64]):
        assert np.array_equal(enlarge(path, image), nearest(image))
    if width is not None:
        with pytest.raises(errors.UsageError, match=rf"takes pictures of {width} x {height} pixels.*--tile auto"):
            enlarge(path, photograph, tile=None)


def test_a_fixed_size_is_near_the_free_one(photograph, tmp_path):
    """Tiles are blended, and padded at the picture's ends: approximate, and near."""
    network = make_network(2, grid=1)
    onnx.save(network, tmp_path / "free.onnx")
    for number, side in ((0, 1), (2, 48), (3, 48)):
        network.graph.input[0].type.tensor_type.shape.dim[number].dim_value = side
    onnx.save(network, tmp_path / "fixed.onnx")
    expected, result = (enlarge(tmp_path / name, photograph) for name in ("free.onnx", "fixed.onnx"))
    difference = np.abs(expected.astype(int) - result)
    assert difference[:-20, :-20].max() <= 1
    assert difference.mean() < 1


def test_one_channel_is_the_luma(photograph, tmp_path):
    """Grey as it is; of colors the luma by the network, and the rest by bicubic interpolation."""
    path = nearest_network(tmp_path / "m.onnx", [None, 1, None, None], channels=1)
    image = photograph[:40, :50]
    assert np.array_equal(enlarge(path, image[..., 1]), nearest(image[..., 1]))
    flat = np.full((20, 30, 3), (200, 30, 90), np.uint8)
    assert np.array_equal(enlarge(path, flat), nearest(flat))
    weights = np.array([0.299, 0.587, 0.114])
    with SuperResolver(path, scale=2, value_range="0..1", tile=None) as resolver:
        result = resolver.super_resolve(image.astype(np.float32))
    assert np.abs(result @ weights - nearest(image.astype(np.float32) @ weights)).max() < 0.01


def test_batches_of_a_network_that_takes_one(photograph, tmp_path):
    path = nearest_network(tmp_path / "m.onnx", [1, 3, 40, 40])
    images = [photograph[:30, :30], photograph[20:50, :30]]
    with SuperResolver(path, scale=2, value_range="0..1") as resolver, resolver.map(images, batch=2) as results:
        for image, result in zip(images, results, strict=True):
            assert np.array_equal(result, nearest(image))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ([1, 4, None, None], {}, r"\(N, 3, H, W\) or \(N, 1, H, W\) is expected"),
        ([4, 3, None, None], {}, "N free, or 1"),
        ([None] * 4, {"kind": TensorProto.UINT8}, "tensor\\(uint8\\).* float32 or float16"),
        ([None] * 4, {"outputs": 2}, "its output is out .*, second"),
        ([None] * 4, {"unshuffle": 5}, "runs on none of the sizes that were tried"),
    ],
)
def test_what_does_not_run_is_refused_with_the_reason(tmp_path, shape, options, message):
    path = nearest_network(tmp_path / "m.onnx", shape, **options)
    with pytest.raises(errors.ModelLoadError, match=message):
        SuperResolver(path, scale=2, value_range="0..1")


def test_a_wrong_scale_is_told_when_it_is_opened(tmp_path, capsys, sample):
    path = nearest_network(tmp_path / "m.onnx", [None] * 4)
    command = ["upscale", str(sample), "-o", str(tmp_path / "out.png"), "--model", str(path), "--value-range", "0..1"]
    assert cli.main([*command, "--scale", "4"]) == 1
    assert "Give its true --scale" in capsys.readouterr().err
    assert cli.main([*command, "--scale", "2"]) == 0
