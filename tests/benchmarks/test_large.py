"""The large photograph: what is run of a plan, and what is counted from it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from benchmarks import large, subjects
from runtime import SuperResolver
from runtime.metadata import ModelMetadata, StageFacts
from runtime.tiles.budget import work
from runtime.tiles.plan import plan_tiles


@pytest.fixture(scope="module")
def metadata() -> ModelMetadata:
    with SuperResolver("ignn-s-x2", providers=["cpu"]) as resolver:
        return resolver.metadata


@pytest.mark.parametrize("tile", [(500, 700), (1500, 900), (3000, 500), (3000, 2000), (3000, 4000)])
def test_one_tile_of_each_kind_is_run_and_the_rest_is_counted(metadata: ModelMetadata, tile: tuple[int, int]) -> None:
    plan = plan_tiles(3000, 4000, metadata, tile=tile)
    sample = large.one_of_each_kind(plan)
    kinds = Counter(large.kind_of(sample, one) for one in sample)
    assert set(kinds) == {large.kind_of(plan, one) for one in plan}
    assert set(kinds.values()) == {1}
    assert isinstance(metadata.stages, StageFacts)
    # Where time is the planner's work, what is counted is the planner's work.
    seconds = {large.kind_of(sample, one): large._work(one, metadata.stages) for one in sample}
    found = large._of_plan(plan, metadata.stages, seconds)
    if plan.crop_pixels > metadata.stages.whole_pixels:
        assert found["seconds"] == pytest.approx(work(plan, metadata.stages), rel=0.01)
    assert sum(found["kinds"].values()) == found["tiles"] == len(plan)
    assert 0 < found["share"] <= 1


def test_blended_tiles_cover_the_picture() -> None:
    crops = large.blended_crops(600, 1000)
    seen = np.zeros((600, 1000), int)
    for top, bottom, left, right in crops:
        seen[top:bottom, left:right] += 1
    assert len(crops) == 3 * 4
    assert seen.min() == 1
    found = large._of_blended(600, 1000, {"tiles": 1.0, "join": 0.5})
    assert found["seconds"] == pytest.approx(0.5 + seen.sum() / (4 * 288**2), rel=0.05)


def test_a_plans_tiles_are_timed_beside_the_whole_result() -> None:
    model = str(subjects.onnx_file("edsr-s"))
    size = {"model": model, "height": 200, "width": 260, "threads": 1, "within": 10**12}
    plan, stages = large.planned(**size)()
    assert (len(plan), stages) == (1, None)
    with SuperResolver(model, providers=["cpu"]) as resolver:
        plan = plan_tiles(200, 260, resolver.metadata, tile=100)
    seconds = large.tiled(**size, plan=plan)()
    assert set(seconds) == {"corner", "upper or lower edge"}
    assert all(value > 0 for value in seconds.values())


def test_a_target_is_of_the_largest_picture_by_pixel() -> None:
    """A small picture of 100 pixels takes a second, the large one of 1,000 pixels 15: 1.5 times as long by pixel."""

    def row(height: int, seconds: float) -> dict[str, Any]:
        config = {"ours": "tiny", "height": height, "width": 4000, "within_gb": [4, 8]}
        derived = {large.whole_of("tiny"): {"seconds": 1.0, "pixels": 100}}
        derived |= {f"tiny, within {gb} GB": {"seconds": seconds, "pixels": 1000} for gb in (4, 8)}
        return {"config": config, "measurements": {"derived": derived}}

    (found,) = large.targets([row(720, 99.0), row(3000, 15.0)])
    assert found["figure"] == "tiny, 3000 x 4000 within 4 GB: time by pixel over a small one's"
    assert (found["measured"], found["limit"], found["met"]) == (1.5, 1.3, False)
