"""The one loop over tiles: what is in flight, what an error or a lack of memory does to it, in every way to use it."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque

import numpy as np
import pytest
from PIL import Image

from runtime import SuperResolver, errors
from runtime.backends import BackendMemoryError
from runtime.commands.stream import upscale_stream
from runtime.pictures.read import read_still
from runtime.pictures.turns import TURNS, MeanOfTurns, all_turns

LANES = 3


class Overlapping:
    """Takes three inputs before it gives the first result, as TensorRT does; inputs above `most` values do not fit."""

    takes_bytes, on_host, stages = False, True, None

    def __init__(self, backend):
        self.backend, self.most = backend, 1 << 40
        self.metadata, self.description = backend.metadata, backend.description
        self.sizes = []
        self.most_begun = self.refused = 0
        self.lock = threading.Lock()

    def run(self, lr):
        return next(self.run_all([lr]))

    def run_all(self, inputs):
        begun = deque()
        with self.lock:
            for lr in inputs:
                if lr.size > self.most:
                    self.refused += 1
                    raise BackendMemoryError("out of memory")
                if (lr == 255).all(axis=(1, 2, 3)).any():
                    raise errors.NonFiniteOutputError("gave NaN")
                self.sizes.append(len(lr))
                begun.append(lr)
                self.most_begun = max(self.most_begun, len(begun))
                if len(begun) == LANES:
                    yield self.backend.run(begun.popleft())
            while begun:
                yield self.backend.run(begun.popleft())

    def free_memory(self):
        return 1 << 40


def overlapping(model, **options):
    resolver = SuperResolver(model, **options)
    resolver.network.backend = Overlapping(resolver.network.backend)
    return resolver, resolver.network.backend


def test_a_call_overlaps(x2_model, photograph):
    resolver, backend = overlapping(x2_model, tile=32)
    assert np.array_equal(resolver(photograph), SuperResolver(x2_model, tile=32)(photograph))
    assert backend.most_begun == LANES


def test_the_turns_of_self_ensemble_overlap(x2_model, photograph):
    resolver, backend = overlapping(x2_model, self_ensemble=True)
    assert np.array_equal(resolver(photograph), SuperResolver(x2_model, self_ensemble=True)(photograph))
    assert backend.most_begun == LANES


def test_the_images_of_map_overlap(x2_model, photograph):
    resolver, backend = overlapping(x2_model)
    frames = [np.roll(photograph, index, axis=0)[:100] for index in range(20)]
    for frame, result in zip(frames, resolver.map(frames, ahead=8), strict=True):
        assert np.array_equal(result, SuperResolver(x2_model)(frame))
    assert backend.most_begun > 1  # as many as were decoded by then


def test_a_stream_overlaps(x2_model, photograph, tmp_path):
    pytest.importorskip("pyvips", reason="needs the extra: pip install ignn[stream]")
    Image.fromarray(photograph).save(tmp_path / "in.png")
    resolver, backend = overlapping(x2_model, tile=32)
    upscale_stream(resolver, tmp_path / "in.png", tmp_path / "out.png")
    assert np.array_equal(read_still(tmp_path / "out.png").color, resolver(photograph))
    assert backend.most_begun == LANES


@pytest.mark.parametrize("most", [1 << 40, 3 * 50 * 56])
def test_few_crops_are_kept_and_none_is_read_twice(x2_model, photograph, most):
    """A stream's rows never come back, also where memory runs out: what is in flight is run again from memory."""
    resolver, backend = overlapping(x2_model)
    network, backend.most = resolver.network, most
    read, done, kept = [], [], []

    def read_crop(tile):
        read.append(tile)
        kept.append(len(read) - len(done))
        return tile.crop(photograph)

    network.tile = 48
    plan = network.plan(*photograph.shape[:2])
    convert = network.converter(np.dtype(np.uint8), grey=False)
    bands = list(network.bands(read_crop, plan, convert, lambda count, _: done.append(count)))
    assert np.array_equal(np.concatenate(bands), SuperResolver(x2_model, tile=None)(photograph))
    assert read == list(plan)
    assert done == list(range(1, len(plan) + 1))
    assert max(kept) == (LANES if most == 1 << 40 else 2)  # the last of them is read, not yet begun
    assert backend.refused == (0 if most == 1 << 40 else 2)  # beside the one in flight, then by itself


def test_an_error_in_reading_ends_the_image(x2_model, photograph):
    resolver, _ = overlapping(x2_model, tile=32)
    plan, count = resolver.network.plan(*photograph.shape[:2]), 0

    def read_crop(tile):
        nonlocal count
        count += 1
        if count == 9:
            raise errors.ImageReadError("damaged")
        return tile.crop(photograph)

    bands = resolver.network.bands(read_crop, plan, lambda values: values, lambda done, total: None)
    with pytest.raises(errors.ImageReadError, match="damaged"):
        list(bands)
    assert count == 9


@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_that_fails_among_those_in_flight_fails_alone(x2_model, photograph, batch):
    resolver, _ = overlapping(x2_model)
    image, white = photograph[:40, :40], np.full((40, 40, 3), 255, np.uint8)
    expected = resolver(image)
    results = resolver.map([image, white, image, white, image, image], batch=batch, ahead=8)
    for fails in (False, True, False, True, False, False):
        if fails:
            with pytest.raises(errors.NonFiniteOutputError):
                next(results)
        else:
            assert np.array_equal(next(results), expected)


def test_a_batch_that_does_not_fit_is_halved(x2_model, photograph, caplog):
    resolver, backend = overlapping(x2_model)
    crop = photograph[:40, :40]
    expected, backend.most = resolver(crop), 2 * crop.size
    backend.sizes.clear()
    with caplog.at_level(logging.WARNING, "ignn"):
        for result in resolver.map([crop] * 12, batch=4, ahead=20):
            assert np.array_equal(result, expected)
    assert [record.getMessage() for record in caplog.records] == ["out of memory with a batch of 4: going on with 2"]
    assert backend.sizes == [1] * 4 + [2] * 4
    assert backend.refused == 1


def test_blended_tiles_keep_their_edges_when_memory_runs_out(x2_model, photograph):
    whole = SuperResolver(x2_model, tile=None)(photograph).astype(int)
    resolver, backend = overlapping(x2_model, tile=64, halo=4)
    backend.most = 3 * 48 * 48
    blended = resolver(photograph)
    assert backend.refused
    assert np.abs(whole - blended).mean() < 0.2
    assert np.abs(whole - blended).max() < 40  # an edge blended with black would be off by more


def test_a_caller_who_gives_an_image_only_after_the_last_result(x2_model, photograph):
    resolver, _ = overlapping(x2_model)
    given: queue.Queue = queue.Queue()

    def frames():
        while (frame := given.get(timeout=60)) is not None:
            yield frame

    with resolver.map(frames()) as results:
        for index in range(4):
            given.put(photograph[index : index + 20, :20])
            assert next(results).shape == (40, 40, 3)
        given.put(None)
        assert list(results) == []


def test_the_backend_is_free_while_results_wait(x2_model, photograph):
    """The thread of `map` holds the backend only as long as it works."""
    resolver, _ = overlapping(x2_model)
    with resolver.map(photograph[:20, :20] for _ in range(100)) as results:
        next(results)
        other = threading.Thread(target=resolver, args=(photograph[:20, :20],), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive()
        assert next(results).shape == (40, 40, 3)


def test_turns_come_back():
    image = np.random.default_rng(0).uniform(0, 1, (5, 7, 3)).astype(np.float32)
    turns = all_turns(image)
    assert len({turn.tobytes() for turn in turns}) == len(TURNS) == 8
    mean = MeanOfTurns()
    for turn in turns:
        with pytest.raises(ValueError, match=f"{mean.count} were added"):
            mean.mean()
        mean.add(turn)
    np.testing.assert_allclose(mean.mean(), image, rtol=1e-6)
