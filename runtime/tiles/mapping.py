"""`SuperResolver.map`: a stream of images through one network, with bounded queues."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .plan import Composer, Tile

if TYPE_CHECKING:
    from ..backends import Values
    from ..pictures.picture import Picture
    from ..super_resolver import SuperResolver


@dataclass
class Pending:
    """One image on its way: its tiles come in order, its bands are collected."""

    image: Any
    error: BaseException | None = None
    source: Picture | None = None
    lr: Values | None = None
    composer: Composer | None = None
    tiles: deque[Tile] = field(default_factory=deque)
    bands: list[NDArray[Any]] = field(default_factory=list)
    result: Any = None

    def crop(self) -> Values:
        """The LR pixels of the next tile's crop."""
        assert self.lr is not None
        tile = self.tiles[0]
        return self.lr[tile.row.crop_start : tile.row.crop_stop, tile.column.crop_start : tile.column.crop_stop]

    def fail(self, error: BaseException) -> None:
        """End here, with that error."""
        self.error = error
        self.tiles.clear()


class ResultIterator(Iterator[Any]):
    """Results in the images' order.

    An image that fails raises its error from `next()`; the `next()` after that gives the next image's result. A thread
    works ahead of the caller until `ahead` results wait, and takes no more images until one is fetched. `close()`,
    leaving a `with` block, or forgetting the iterator stops it.
    """

    def __init__(self, resolver: SuperResolver, images: Iterable[Any], *, batch: int, ahead: int) -> None:
        # Flips and turns share no tiles.
        self._work = _Work(resolver, iter(images), 1 if resolver.self_ensemble else batch, ahead)
        self._exhausted = False
        # The thread knows nothing of the iterator, so that one that nobody holds any more can end it.
        self._thread = threading.Thread(target=self._work.run, name="ignn-map", daemon=True)
        self._thread.start()
        weakref.finalize(self, self._work.stopped.set)

    def __iter__(self) -> ResultIterator:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - an image of the kind that went in
        if self._exhausted:
            raise StopIteration
        item = self._work.results.get()
        if item is None:
            self._exhausted = True
            raise StopIteration
        if item.error is not None:
            raise item.error
        return item.result

    def __enter__(self) -> ResultIterator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop working ahead; what is not fetched is dropped."""
        self._work.stopped.set()
        self._exhausted = True
        while self._thread.is_alive():
            try:  # the thread may wait for room
                self._work.results.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)


class _Work:
    """What the thread does."""

    def __init__(self, resolver: SuperResolver, images: Iterator[Any], batch: int, ahead: int) -> None:
        self._resolver, self._images, self._batch = resolver, images, batch
        self.results: queue.Queue[Pending | None] = queue.Queue(maxsize=ahead)
        self.stopped = threading.Event()

    def run(self) -> None:
        """Take images, run their tiles in batches, hand over results in order."""
        waiting: deque[Pending] = deque()
        more = True
        while not self.stopped.is_set() and (more or waiting):
            while more and len(waiting) < self._batch:
                item = self._take()
                more = item is not None
                if item is not None:
                    waiting.append(item)
                    more = not isinstance(item.image, _Exhausted)
            if waiting and not waiting[0].tiles:
                self._put(self._finished(waiting.popleft()))
            elif waiting:
                self._run(waiting)
        self._put(None)

    def _put(self, item: Pending | None) -> None:
        while not self.stopped.is_set():
            try:
                self.results.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _take(self) -> Pending | None:
        try:
            image = next(self._images)
        except StopIteration:
            return None
        except BaseException as error:  # the caller's iterator failed: its error belongs to this place
            return Pending(_Exhausted(), error)
        item = Pending(image)
        try:
            self._resolver.prepare(item, self._batch)
        except Exception as error:
            item.error = error
        return item

    def _run(self, waiting: deque[Pending]) -> None:
        """One batch: the next tile of the first image, and as many of equal size as there are, across images."""
        shape = waiting[0].crop().shape
        batch: list[tuple[Pending, Tile, Values]] = []
        for item in waiting:
            while item.tiles and len(batch) < self._batch and item.crop().shape == shape:
                batch.append((item, item.tiles[0], item.crop()))
                item.tiles.popleft()
        try:
            results: list[Values | None] = [
                *self._resolver.network.run_batch([crop for _, _, crop in batch], [tile for _, tile, _ in batch])
            ]
        except Exception:  # of one of them, perhaps: each alone then, to know of which
            results = [None] * len(batch)
        for (item, tile, crop), sr in zip(batch, results, strict=True):
            if item.error is not None:
                continue
            try:
                assert item.composer is not None
                sr = self._resolver.network.run_tile(crop, tile) if sr is None else sr
                item.bands += [band for _, band in item.composer.add(tile, sr)]
            except Exception as error:
                item.fail(error)

    def _finished(self, item: Pending) -> Pending:
        if item.error is None:
            try:
                self._resolver.complete(item)
            except Exception as error:
                item.error = error
        return item


class _Exhausted:
    """Stands for the image that the caller's iterator failed to give."""
