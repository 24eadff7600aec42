"""Streams of images, threads and asyncio on one resolver."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from runtime import SuperResolver, errors


def images(photograph: np.ndarray, count: int) -> list[np.ndarray]:
    """Pictures of two sizes in turn, all different."""
    return [np.roll(photograph, index, axis=0)[: 40 if index % 3 else 60, :70] for index in range(count)]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("tile", [None, 20])
@pytest.mark.parametrize("self_ensemble", [False, True])
def test_results_are_those_of_single_calls_in_order(x2_model, photograph, batch, tile, self_ensemble):
    resolver = SuperResolver(x2_model, tile=tile, self_ensemble=self_ensemble)
    sources = images(photograph, 10)
    results = list(resolver.map(iter(sources), batch=batch))
    assert len(results) == 10
    for source, result in zip(sources, results, strict=True):
        assert np.abs(resolver(source).astype(int) - result).max() <= 1


def test_tiles_of_equal_size_share_a_batch_across_images(x2_model, photograph):
    resolver = SuperResolver(x2_model)
    sizes = []
    run = resolver.network.backend.run
    resolver.network.backend.run = lambda lr: (sizes.append(len(lr)), run(lr))[1]
    list(resolver.map([photograph[:40, :40]] * 8, batch=4))
    assert sizes == [4, 4]


def test_kinds_are_kept(resolver, sample, photograph):
    array, image, path = resolver.map([photograph, Image.open(sample), sample])
    assert isinstance(array, np.ndarray)
    assert isinstance(image, Image.Image)
    assert isinstance(path, Image.Image)


def test_errors_come_at_their_place_and_the_rest_goes_on(resolver, photograph, tmp_path):
    stream = [photograph, np.zeros((2, 2), np.int64), tmp_path / "absent.png", photograph]
    results = resolver.map(stream, batch=2)
    assert next(results).shape == (300, 450, 3)
    with pytest.raises(errors.InvalidImageError):
        next(results)
    with pytest.raises(errors.ImageReadError):
        next(results)
    assert next(results).shape == (300, 450, 3)
    with pytest.raises(StopIteration):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("tile", [None, 20])
def test_an_image_that_fails_in_a_batch_fails_alone(model_file, photograph, tile):
    """A network whose result is infinite but for black: the black ones of the batch come out."""
    resolver = SuperResolver(model_file(2, {"gain": 1e30}), tile=tile)
    black, bright = np.zeros((40, 40, 3), np.uint8), photograph[:40, :40]
    results = resolver.map([black, bright, black, bright], batch=4)
    for _ in range(2):
        assert not next(results).any()
        with pytest.raises(errors.NonFiniteOutputError):
            next(results)


def test_a_batch_that_fails_is_run_one_by_one(x2_model, photograph):
    """A backend that checks by itself says of a batch only that something in it is wrong."""
    resolver = SuperResolver(x2_model)
    run = resolver.network.backend.run

    def refuse_white(lr):
        if (lr == 255).all(axis=(1, 2, 3)).any():
            raise errors.NonFiniteOutputError("gave NaN")
        return run(lr)

    resolver.network.backend.run = refuse_white
    whole, white = photograph[:40, :40], np.full((40, 40, 3), 255, np.uint8)
    results = resolver.map([whole, white, whole], batch=3)
    assert next(results).shape == (80, 80, 3)
    with pytest.raises(errors.NonFiniteOutputError):
        next(results)
    assert next(results).shape == (80, 80, 3)


@pytest.mark.parametrize("kind", [OSError, SystemExit])
def test_an_iterator_that_fails(resolver, photograph, kind):
    def camera():
        yield photograph[:20, :20]
        raise kind("unplugged")

    results = resolver.map(camera())
    assert next(results).shape == (40, 40, 3)
    with pytest.raises(kind, match="unplugged"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("ahead", [1, 3])
def test_back_pressure_on_an_endless_stream(resolver, photograph, ahead):
    taken = []

    def endless():
        for index in itertools.count():
            taken.append(index)
            yield photograph[:20, :20]

    with resolver.map(endless(), ahead=ahead) as results:
        next(results)
        time.sleep(0.3)  # the thread would run away here
        assert len(taken) <= ahead + 3
        before = threading.active_count()
    assert threading.active_count() < before
    assert list(results) == []


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_an_iterator_left_early_ends_its_thread(resolver, photograph, how):
    before = threading.active_count()
    results = resolver.map(itertools.repeat(photograph[:20, :20]))
    next(results)
    if how == "closed":
        results.close()
    else:
        del results
        gc.collect()
        deadline = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize("arguments", [{"batch": 0}, {"ahead": 0}, {"batch": 1.5}])
def test_wrong_arguments(resolver, arguments):
    with pytest.raises(errors.UsageError, match="Invalid"):
        resolver.map([], **arguments)


def test_32_threads_on_one_resolver(x2_model, photograph):
    resolver = SuperResolver(x2_model, tile=32)
    sources = images(photograph, 64)
    expected = [resolver(source) for source in sources]
    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(resolver, sources))
    for result, wanted in zip(results, expected, strict=True):
        assert np.array_equal(result, wanted)


def test_async_use(resolver, photograph):
    """The event loop stays free while the network runs in a thread."""
    sources = images(photograph, 8)

    async def main() -> tuple[list[np.ndarray], int]:
        ticks = 0

        async def clock() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        watch = asyncio.create_task(clock())
        results = await asyncio.gather(*(asyncio.to_thread(resolver, source) for source in sources))
        watch.cancel()
        return results, ticks

    results, ticks = asyncio.run(main())
    assert ticks > 0
    for source, result in zip(sources, results, strict=True):
        assert np.array_equal(result, resolver(source))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("batch", "self_ensemble"), [(1, False), (2, False), (2, True)])
def test_an_array_that_is_filled_again(x2_model, batch, self_ensemble, channels):
    resolver = SuperResolver(x2_model, self_ensemble=self_ensemble)
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 20, channels), np.uint8)
    buffer = np.empty_like(frames[0])

    def refilled():
        for frame in frames:
            buffer[...] = frame
            yield buffer

    with resolver.map(refilled(), batch=batch) as results:
        for frame, result in zip(frames, results, strict=True):
            assert np.array_equal(result, resolver(frame))
