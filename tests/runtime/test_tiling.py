"""Exact tiles: the tiled result is the whole image's."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import SuperResolver, errors
from runtime.backends import BackendMemoryError
from runtime.metadata import ModelMetadata
from runtime.tiles.composer import Composer
from runtime.tiles.network import MINIMUM_TILE
from runtime.tiles.plan import plan_tiles


def facts(graph_scale: int = 2, halo: int = 8, window: int = 3, *, exact: bool = True) -> ModelMetadata:
    return ModelMetadata("test", graph_scale, "0..255", halo, 2 * graph_scale, window, exact, "fp32", 1000)


sizes = st.integers(1, 400)


@settings(max_examples=300, deadline=None)
@given(
    height=sizes,
    width=sizes,
    tile=st.integers(1, 300),
    graph_scale=st.sampled_from([2, 3]),
    halo=st.integers(0, 100),
    window=st.integers(1, 30),
)
def test_what_makes_tiles_exact(height, width, tile, graph_scale, halo, window):
    metadata = facts(graph_scale, halo, window)
    multiple = metadata.tile_multiple
    plan = plan_tiles(height, width, metadata, tile=tile)
    for length, segments in ((height, plan.rows), (width, plan.columns)):
        assert [s.start for s in segments[1:]] == [s.stop for s in segments[:-1]]
        assert (segments[0].start, segments[-1].stop) == (0, length)
        for segment in segments:
            assert segment.start < segment.stop
            assert segment.crop_start % multiple == 0
            assert segment.crop_start == 0 or segment.crop_start <= segment.start - halo
            assert segment.crop_stop == length or segment.crop_stop >= segment.stop + halo
            assert 0 <= segment.crop_start < segment.crop_stop <= length
            if len(segments) > 1:  # the window's side stays that of the whole image
                assert segment.stop - segment.start <= max(tile, multiple)
                assert length // multiple > window
                assert segment.crop_length // multiple > window
    if len(plan) > 1:
        whole = min(window, height // multiple, width // multiple)
        for t in plan:
            assert whole == min(window, t.row.crop_length // multiple, t.column.crop_length // multiple)
            assert max(t.row.crop_length // multiple, t.column.crop_length // multiple) > window


@pytest.mark.parametrize("scale", [2, 3, 4])
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(1, 64), seed=st.integers(0, 9))
def test_tiled_result_is_the_whole_one(model_file, scale, height, width, tile, seed):
    path = _models.setdefault(scale, model_file(scale))
    lr = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    whole = SuperResolver(path, tile=None).super_resolve(lr)
    tiled = SuperResolver(path, tile=tile).super_resolve(lr)
    assert whole.shape == (scale * height, scale * width, 3)
    assert np.abs(whole - tiled).max() < 1e-3


_models: dict[int, object] = {}


def test_tiles_without_context_are_not_exact(x2_model, photograph):
    """The test above can fail: without its halo the same network shows seams, or blends, and says so."""
    whole = SuperResolver(x2_model, tile=None)(photograph).astype(int)
    rough = SuperResolver(x2_model, tile=16, halo=0)(photograph).astype(int)
    assert np.abs(whole - rough).max() > 2


def test_blended_tiles_are_close_and_say_so(x2_model, photograph, caplog):
    whole = SuperResolver(x2_model, tile=None)(photograph).astype(int)
    resolver = SuperResolver(x2_model, tile=40, halo=4)
    with caplog.at_level(logging.WARNING, "ignn"):
        blended = resolver(photograph).astype(int)
        resolver(photograph)
    assert [record.getMessage() for record in caplog.records] == ["tiles are approximate: halo 4, exact from 8 on"]
    assert np.abs(whole - blended).mean() < 0.2


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    tile=st.integers(1, 40),
    halo=st.integers(0, 30),
    scale=st.sampled_from([1, 2, 3]),
)
def test_blending_weights_sum_to_one(height, width, tile, halo, scale):
    metadata = facts(halo=0, window=0, exact=False)
    plan = plan_tiles(height, width, metadata, tile=tile, halo=halo)
    composer = Composer(plan, scale, lambda values: values)
    next_row = 0
    for t in plan:
        ones = np.ones((t.row.crop_length * scale, t.column.crop_length * scale, 3), np.float32)
        for first, band in composer.add(t, ones):
            assert first == next_row
            next_row += len(band)
            assert np.abs(band - 1).max() < 1e-5
    assert next_row == height * scale


def test_auto_takes_tiles_that_fit_the_free_memory(x2_model, photograph, monkeypatch):
    resolver = SuperResolver(x2_model, tile="auto")
    assert len(resolver.network.plan(150, 225)) == 1  # 2000 bytes a pixel by the metadata: 65 MB
    monkeypatch.setattr(type(resolver.network.backend), "free_memory", lambda self: 20_000_000)
    plan = resolver.network.plan(150, 225)
    assert len(plan) > 1
    resolver.network.host_share = 0.5
    assert resolver.network.plan(150, 225).crop_pixels < plan.crop_pixels
    resolver.network.host_share = 1
    assert plan.crop_pixels * 2000 <= 20_000_000
    assert np.array_equal(resolver(photograph), SuperResolver(x2_model, tile=None)(photograph))


def test_auto_is_the_default(x2_model):
    assert SuperResolver(x2_model).network.tile == "auto"


@pytest.mark.parametrize(("dtype", "self_ensemble", "result"), [("u1", False, 6), ("u2", False, 24), ("u1", True, 30)])
def test_auto_counts_the_picture_and_its_result(x2_model, monkeypatch, dtype, self_ensemble, result):
    """So many bytes for each of the result's pixels are not for the network: 3 or 12 a copy, 24 for a sum of turns."""
    network = SuperResolver(x2_model, self_ensemble=self_ensemble).network
    free = 130_000_000
    monkeypatch.setattr(type(network.backend), "free_memory", lambda self: free)
    lr = np.zeros((1000, 1000, 3), np.uint8 if dtype == "u1" else np.float32)
    plans = [image.plan for image in network.whole_image(lr, lambda values: values).images()]
    unburdened = network.plan(1000, 1000)
    free -= result * 4_000_000
    assert plans[0] == network.plan(1000, 1000) != unburdened
    assert plans[1:] == [unburdened] * (7 if self_ensemble else 0)  # the sum is there by then, and no longer free


@pytest.mark.parametrize("free", [20_000_000, 28_000_000])
def test_a_picture_that_no_tile_is_small_enough_for(x2_model, monkeypatch, free):
    """It is told before anything runs: 24 MB for the result, and 4.6 MB for a tile of 32 and its context."""
    resolver = SuperResolver(x2_model)
    monkeypatch.setattr(type(resolver.network.backend), "free_memory", lambda self: free)
    monkeypatch.setattr(type(resolver.network.backend), "run", lambda *_: pytest.fail("it runs"))
    with pytest.raises(errors.DeviceMemoryError, match=r"1000 x 1000 pixels needs 24 MB .* 5 MB .*--stream"):
        resolver(np.zeros((1000, 1000, 3), np.uint8))


class Scarce:
    """A device with room for so many pixels, around a true backend: the edge where memory runs out."""

    takes_bytes, on_host, stages = False, True, None

    def __init__(self, backend, most_pixels):
        self.backend, self.most_pixels, self.refused = backend, most_pixels, 0
        self.metadata, self.description = backend.metadata, backend.description

    def run(self, lr):
        if lr.shape[2] * lr.shape[3] > self.most_pixels:
            self.refused += 1
            raise BackendMemoryError("Failed to allocate memory for requested buffer")
        return self.backend.run(lr)

    def run_all(self, inputs):
        return map(self.run, inputs)

    def free_memory(self):
        return 1 << 40


@pytest.mark.parametrize("tile", [None, "auto", 128])
def test_out_of_memory_halves_the_tile_and_goes_on(x2_model, photograph, caplog, tile):
    whole = SuperResolver(x2_model, tile=None)(photograph)
    resolver = SuperResolver(x2_model, tile=tile)
    resolver.network.backend = scarce = Scarce(resolver.network.backend, 6000)
    with caplog.at_level(logging.WARNING, "ignn"):
        assert np.array_equal(resolver(photograph), whole)
    assert scarce.refused > 0
    assert "out of memory" in caplog.text
    scarce.refused = 0
    assert np.array_equal(resolver(photograph), whole)
    assert scarce.refused == 0  # it has learned


def test_out_of_memory_with_the_smallest_tile_is_an_error(x2_model, photograph):
    resolver = SuperResolver(x2_model, tile=None)
    resolver.network.backend = Scarce(resolver.network.backend, 100)
    with pytest.raises(errors.DeviceMemoryError, match=rf"down to {MINIMUM_TILE}\) needs less"):
        resolver(photograph)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by the resource module")
def test_true_memory_exhaustion(model_file):
    """A process whose address space is too small for the whole picture: it halves the tile by itself."""
    program = f"""
import resource, sys, logging
logging.basicConfig()
import numpy as np
from runtime import SuperResolver
resolver = SuperResolver({str(model_file(2, {"width": 64}))!r}, threads=1, tile=None)
image = np.random.default_rng(0).integers(0, 256, (500, 600, 3), dtype=np.uint8)
whole = resolver(image)
used = int(open('/proc/self/statm').read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (120 << 20),) * 2)
assert np.array_equal(resolver(image), whole)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "out of memory" in result.stderr
