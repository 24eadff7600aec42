"""The page's modules compute what the command line's do: tile plans, metadata, alpha, hidden colors, PNG files."""

from __future__ import annotations

import dataclasses
import io
import random

import numpy as np
import pytest
from PIL import Image

from runtime.backends.onnx_file import read_facts
from runtime.metadata import ModelMetadata, read_metadata
from runtime.models import FOLDER, bundled_models
from runtime.pictures import picture as pictures
from runtime.tiles.plan import plan_tiles


def in_javascript(metadata: ModelMetadata) -> dict[str, object]:
    """The facts that the page reads, under its names."""
    return {
        "name": metadata.name,
        "scale": metadata.scale,
        "halo": metadata.halo,
        "tileMultiple": metadata.tile_multiple,
        "window": metadata.window,
        "bytesPerPixel": metadata.bytes_per_pixel,
    }


def metadata_of(path) -> ModelMetadata:
    return read_metadata(read_facts(path.read_bytes(), source=str(path)).properties, source=str(path))


def test_metadata_is_read_from_the_file(javascript):
    paths = [FOLDER / model.file for model in bundled_models()]
    found = javascript(
        "return input.map((path) => m.readMetadata(readFileSync(path)));", [*map(str, paths)], module="onnx-file.js"
    )
    assert found == [in_javascript(metadata_of(path)) for path in paths]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model[:1000], "is not an ONNX file, or a damaged one"),
        (lambda model: b"", "it has no graph"),
        (lambda model: b"hello, this is text", "is not an ONNX file"),
        (lambda model: model.replace(b"ignn.halo", b"ignn.hall"), "ignn.halo is missing"),
        (lambda model: model.replace(b"ignn.graph_scale\x12\x012", b"ignn.graph_scale\x12\x013"), "not twice"),
        (lambda model: model.replace(b"ignn.format\x12\x011", b"ignn.format\x12\x019"), "ignn.format is 9"),
    ],
)
def test_files_that_are_refused(javascript, tmp_path, change, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(change((FOLDER / bundled_models()[0].file).read_bytes()))
    lines = "try { m.readMetadata(readFileSync(input)); return ''; } catch (error) { return error.message; }"
    assert message in javascript(lines, str(path), module="onnx-file.js")


def largest_tile(height: int, width: int, metadata: ModelMetadata, pixels: int) -> int | None:
    """Return the tile that the page takes: the largest whose crops have at most so many pixels, by bisection."""
    if height * width <= pixels:
        return None
    multiple = metadata.tile_multiple
    low, high = 1, -(-max(height, width) // multiple)
    while low < high:
        middle = (low + high + 1) // 2
        fits = plan_tiles(height, width, metadata, tile=middle * multiple).crop_pixels <= pixels
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * multiple


def test_tiles_lie_where_the_command_lines_do(javascript):
    known = [metadata_of(FOLDER / model.file) for model in bundled_models()]
    draw = random.Random(0)
    cases, expected = [], []
    for _ in range(600):
        multiple = draw.choice([2, 4, 6])
        metadata = draw.choice(
            [
                *known,
                dataclasses.replace(
                    known[0], tile_multiple=multiple, halo=draw.randrange(200), window=draw.choice([0, 3, 30])
                ),
            ]
        )
        height, width, pixels = draw.randrange(1, 900), draw.randrange(1, 900), draw.randrange(1, 400_000)
        tile = largest_tile(height, width, metadata, pixels)
        plan = plan_tiles(height, width, metadata, tile=tile)
        cases.append([height, width, in_javascript(metadata), pixels])
        rows, columns = (
            [[part.start, part.stop, part.crop_start, part.crop_stop] for part in parts]
            for parts in (plan.rows, plan.columns)
        )
        expected.append([tile, rows, columns, plan.crop_pixels])
    lines = """
        const list = (parts) => parts.map((p) => [p.start, p.stop, p.cropStart, p.cropStop]);
        return input.map(([height, width, metadata, pixels]) => {
          const tile = m.largestTile(height, width, metadata, pixels);
          const plan = m.planTiles(height, width, metadata, tile);
          return [tile, list(plan.rows), list(plan.columns), plan.cropPixels];
        });"""
    assert javascript(lines, cases, module="tile-plan.js") == expected


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (13, 10)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_alpha_is_enlarged_by_lanczos(javascript, height, width, scale):
    rgba = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    expected = pictures._resize_alpha(rgba[..., 3], scale)
    lines = """
        const rgba = Uint8ClampedArray.from(input.rgba);
        const band = (first, last) => [...m.enlargeAlpha(rgba, input.height, input.width, input.scale, first, last)];
        return [...band(0, 1), ...band(1, input.height * input.scale)];"""
    given = {"rgba": rgba.ravel().tolist(), "height": height, "width": width, "scale": scale}
    found = np.array(javascript(lines, given, module="picture.js")).reshape(expected.shape)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.02


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_hidden_colors_are_those_around(javascript, share):
    generator = np.random.default_rng(1)
    rgba = generator.integers(0, 256, (21, 34, 4), dtype=np.uint8)
    rgba[..., 3] = generator.random((21, 34)) < share
    expected = pictures._bleed(rgba[..., :3].astype(np.float32), rgba[..., 3] > 0)
    lines = """
        const rgba = Float32Array.from(input);
        m.fillHidden(rgba, (index) => rgba[index * 4 + 3], 21, 34);
        return [...rgba];"""
    found = np.array(javascript(lines, rgba.ravel().tolist(), module="picture.js")).reshape(rgba.shape)
    assert np.abs(found[..., :3] - expected).max() < 1e-3
    assert np.array_equal(found[..., 3], rgba[..., 3])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_png_files_are_read_by_others(javascript, channels, mode):
    pixels = np.random.default_rng(2).integers(0, 256, (9, 5, channels), dtype=np.uint8)
    lines = """
        const png = new m.PngWriter(5, 9, input.channels);
        for (const rows of input.bands) await png.add(Uint8Array.from(rows));
        return [...new Uint8Array(await (await png.finish()).arrayBuffer())];"""
    bands = [pixels[:4].ravel().tolist(), pixels[4:5].ravel().tolist(), pixels[5:].ravel().tolist()]
    content = bytes(javascript(lines, {"channels": channels, "bands": bands}, module="png.js"))
    image = Image.open(io.BytesIO(content))
    assert image.mode == mode
    assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_grey_files_are_known(javascript, tmp_path):
    expected = {}
    for mode in ("L", "LA", "RGB", "RGBA", "P"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode}.png")
        expected[f"{mode}.png"] = mode in ("L", "LA")
    for mode in ("L", "RGB"):
        image = Image.new(mode, (8, 8))
        image.save(tmp_path / f"{mode}.jpg", exif=b"Exif\0\0" + bytes(3000))
        image.save(tmp_path / f"{mode}p.jpg", progressive=True)
        expected |= {f"{mode}.jpg": mode == "L", f"{mode}p.jpg": mode == "L"}
    (tmp_path / "short.jpg").write_bytes(b"\xff\xd8\xff")
    expected["short.jpg"] = False
    lines = """
        const answers = {};
        for (const name of input.names) {
          answers[name] = await m.isGreyFile(new Blob([readFileSync(input.folder + name)]));
        }
        return answers;"""
    given = {"names": [*expected], "folder": f"{tmp_path}/"}
    assert javascript(lines, given, module="picture.js") == expected


def test_a_difference_that_is_no_number_is_never_small(javascript):
    lines = """
        const nan = m.largestDifference([1, NaN, 3], [1, 2, 3]);
        const short = m.largestDifference([1], [1, 2]);
        return [m.largestDifference([1, 5], [1, 2]), nan <= m.TOLERANCE, short <= m.TOLERANCE];"""
    assert javascript(lines, module="engine.js") == [3, False, False]
