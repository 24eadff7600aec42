"""The network in stages: what is kept of a crop is what the whole graph gives there."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from runtime import SuperResolver
from runtime.backends import Box
from runtime.backends.ort import OrtBackend
from runtime.metadata import StageFacts
from runtime.models import FOLDER, bundled_models
from runtime.tiles import budget
from runtime.tiles.plan import plan_tiles

GRAPHS = [model for model in bundled_models() if model.kind == "graph"]


def opened(name: str) -> tuple[OrtBackend, StageFacts]:
    backend = OrtBackend(FOLDER / name, source=name, providers=["cpu"])
    assert backend.stages is not None
    return backend, backend.stages


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (1, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("model", GRAPHS, ids=lambda model: model.name)
@pytest.mark.parametrize(
    ("height", "width", "kept"),
    [(101, 90, Box(48, 48, 54, 60)), (5, 31, Box(0, 0, 5, 31))],
)
def test_what_is_kept_is_what_the_graph_gives(monkeypatch, model, height, width, kept):
    monkeypatch.setattr(StageFacts, "band_rows", lambda *_: 8)
    backend, _facts = opened(model.file)
    lr, scale = noise(height, width), model.scale
    expected = backend.run(lr)
    found = np.zeros_like(expected)
    backend.open_stages().run(lr, kept, found)
    place = Box(*(scale * side for side in kept))
    assert np.abs(place.of(found) - place.of(expected)).max() < 1e-2
    outside = found.copy()
    outside[..., place.top : place.bottom, place.left : place.right] = 0
    assert not outside.any()


def test_large_crops_run_in_stages_and_tiles_stay_exact(monkeypatch):
    resolver = SuperResolver("ignn-s-x2", tile=None)
    lr = np.random.default_rng(1).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    whole = resolver(lr)
    monkeypatch.setattr(OrtBackend, "_is_small", lambda *_: False)
    monkeypatch.delattr(OrtBackend, "_call")
    in_stages = resolver(lr)
    difference = np.abs(whole.astype(int) - in_stages)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_a_crop_is_small_where_the_graph_fits_the_memory(monkeypatch):
    backend, facts = opened(GRAPHS[0].file)
    assert backend._is_small(facts.whole_pixels, facts)
    assert not backend._is_small(facts.whole_pixels + 1, facts)
    monkeypatch.setattr(OrtBackend, "free_memory", lambda self: 100_000_000)
    assert not backend._is_small(facts.whole_pixels, facts)


def test_a_run_in_stages_can_be_ended():
    backend, _facts = opened("ignn-s-x2.onnx")
    staged = backend.open_stages()
    staged.cancel()
    with pytest.raises(RuntimeError, match="terminate"):
        staged.run(noise(20, 20), Box(0, 0, 20, 20), np.zeros((1, 3, 40, 40), np.float32))


@pytest.mark.parametrize("free", [2_000_000_000, 4_000_000_000])
def test_auto_takes_the_plan_that_computes_least(free):
    backend, facts = opened("ignn-s-x2.onnx")
    metadata = backend.metadata
    chosen = budget.affordable_tile(backend, 3000, 4000, free=free, halo=None)
    assert isinstance(chosen, tuple)
    plan = plan_tiles(3000, 4000, metadata, tile=chosen)
    most = free * budget.MEMORY_SHARE
    assert budget.needed_bytes(plan, metadata, facts) <= most
    for side in range(100, 2000, 50):
        square = plan_tiles(3000, 4000, metadata, tile=side)
        if budget.needed_bytes(square, metadata, facts) <= most:
            assert budget.work(plan, facts) <= budget.work(square, facts)


def test_a_strip_takes_the_whole_height():
    """A picture that is low and wide is cut in one direction alone, which computes least."""
    backend, _ = opened("ignn-s-x2.onnx")
    chosen = budget.affordable_tile(backend, 400, 6000, free=2_500_000_000, halo=None)
    plan = plan_tiles(400, 6000, backend.metadata, tile=chosen)
    assert len(plan.rows) == 1
    assert len(plan.columns) > 1


def test_the_log_says_how_much_is_computed_again(monkeypatch, caplog):
    resolver = SuperResolver("ignn-s-x2")
    monkeypatch.setattr(OrtBackend, "free_memory", lambda self: 2_000_000_000)
    with caplog.at_level(logging.INFO, "ignn"):
        plan = resolver.network.plan(3000, 4000)
    assert f"{len(plan)} tiles" in caplog.text
    assert "times the work of the whole picture" in caplog.text


def test_memory_is_that_of_the_graph_where_there_are_no_stages():
    backend, _ = opened("ignn-s-x2.onnx")
    plan = plan_tiles(300, 300, backend.metadata, tile=None)
    assert budget.needed_bytes(plan, replace(backend.metadata, bytes_per_pixel=7), None) == 300 * 300 * 7
