"""Many images through one network: one thread decodes, another runs the network, and memory is bounded."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..pictures.picture import Picture, enlarged, network_input
from .images import TiledImage, WholeImage
from .network import TiledNetwork

WAKE_SECONDS = 0.2
"""How long a wait lasts before the thread looks for signals."""

Decode = Callable[[Any], Picture]
"""Converts an image of the caller's iterator to a picture; called in the decoding thread."""

Encode = Callable[[Picture, Any], Any]
"""Converts an enlarged picture to a result of the same kind as the second argument, the caller's image."""

Progress = Callable[[Any, int, int], None]
"""Takes an image, how many of its tiles are done, and how many it has; called in the network's thread."""


@dataclass(eq=False)
class Mapped:
    """One image of the caller's iterator, with its result or its error.

    Attributes:
        image: as the iterator gave it.
        error: why there is no result, or None.
        result: as `encode` made it.
        picture, work: while it is under way.
    """

    image: Any
    error: BaseException | None = None
    result: Any = None
    picture: Picture | None = None
    work: WholeImage | None = None

    @property
    def is_done(self) -> bool:
        """Whether the network has finished it, or it has failed."""
        return self.error is not None or (self.work is not None and self.work.done)


class ResultIterator(Iterator[Any]):
    """Results in the images' order.

    An image that fails raises its error from `next()`; the `next()` after that gives the next image's result.
    `close()`, leaving a `with` block, or forgetting the iterator stops the work that is under way.

    Args:
        network: enlarges the pictures.
        images: what to enlarge; it is read in a thread.
        decode, encode: how an image becomes a picture, and a picture a result.
        batch: how many tiles of equal size run at once.
        ahead: how many images, besides two batches, may be decoded, computed or waiting for the caller.
        progress: called after each tile.
    """

    def __init__(
        self,
        network: TiledNetwork,
        images: Iterable[Any],
        decode: Decode,
        encode: Encode,
        *,
        batch: int = 1,
        ahead: int = 2,
        progress: Progress = lambda image, done, total: None,
    ) -> None:
        # The threads know nothing of the iterator, so that one that nobody holds any more can end them.
        self._work = _Work(network, iter(images), decode, encode, progress, batch, ahead)
        self._ended = False
        weakref.finalize(self, self._work.stop)
        self._threads = [
            threading.Thread(target=self._work.decode_images, name="ignn-decode", daemon=True),
            threading.Thread(target=self._work.run_network, name="ignn-map", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> ResultIterator:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - an image of the kind that went in
        item = self._next_item()
        if item is None:
            raise StopIteration
        if item.error is not None:
            raise item.error
        return item.result

    def items(self) -> Iterator[Mapped]:
        """Yield each image with its result or its error, instead of raising the error."""
        while (item := self._next_item()) is not None:
            yield item

    def _next_item(self) -> Mapped | None:
        item = None if self._ended else self._wait()
        if item is None:
            self._ended = True
        else:
            self._work.room.release()
        return item

    def _wait(self) -> Mapped | None:
        """Wait for the next result. A Ctrl-C that comes just before a wait does not end it: so it is a short one."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._work.results.get(timeout=WAKE_SECONDS)

    def __enter__(self) -> ResultIterator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout: float | None = None) -> bool:
        """Stop working ahead, after the tile that runs; what is not fetched is dropped.

        Returns:
            Whether the work has ended, within `timeout` seconds.
        """
        self._ended = True
        self._work.stop()
        # Not `join` alone: interrupted by Ctrl-C, it may take a running thread for one that has ended.
        if not (self._work.decoder_ended.wait(timeout) and self._work.network_ended.wait(timeout)):
            return False
        for thread in self._threads:
            thread.join()
        return True


class _Work:
    """The work of the two threads.

    An image takes a place in `room` before it is asked for, and leaves it when its result is fetched: so no queue ever
    fills, and the network's thread never waits while it holds the backend, which other callers may need.
    """

    def __init__(
        self,
        network: TiledNetwork,
        images: Iterator[Any],
        decode: Decode,
        encode: Encode,
        progress: Progress,
        batch: int,
        ahead: int,
    ) -> None:
        self._network, self._images, self._decode, self._encode = network, images, decode, encode
        self._progress, self._batch = progress, batch
        self.room = threading.Semaphore(ahead + 2 * batch)
        self._decoded: queue.Queue[Mapped | None] = queue.Queue()
        self._all_taken = False
        self._running: deque[Mapped] = deque()  # in the images' order
        self.results: queue.Queue[Mapped | None] = queue.Queue()
        self._stopped = False
        self.decoder_ended, self.network_ended = threading.Event(), threading.Event()

    def stop(self) -> None:
        """Tell both threads to end."""
        self._stopped = True
        self.room.release()

    def decode_images(self) -> None:
        """Take images from the caller's iterator, and decode them."""
        while True:
            self.room.acquire()
            if self._stopped:
                break
            try:
                image = next(self._images)
            except StopIteration:
                break
            except BaseException as error:  # the caller's iterator failed: its error belongs to this place
                self._decoded.put(Mapped(None, error))
                break
            item = Mapped(image)
            try:
                # The caller may fill its array again when it is asked for the next image.
                item.picture = self._decode(image.copy() if isinstance(image, np.ndarray) else image)
            except Exception as error:
                item.error = error
            self._decoded.put(item)
        self._decoded.put(None)
        self.decoder_ended.set()

    def run_network(self) -> None:
        """Run the network on what is decoded; hand over results in order."""
        try:
            while group := self._next_group():
                for image in self._network.run_tiles(self._tiled_images(group), batch=self._batch):
                    self._report(image)
                    self._hand_over()
                    if self._stopped:
                        break
                self._hand_over()  # those that failed before they had a tile
        except BaseException as error:  # a defect of ours must not leave the caller waiting
            self.results.put(Mapped(None, error))
        finally:
            self.results.put(None)
            self.network_ended.set()

    def _tiled_images(self, group: list[Mapped]) -> Iterator[TiledImage]:
        """Yield the images of this batch for the network, and those of later batches that are decoded by then."""
        while group:
            self._running += group
            for item in group:
                yield from self._begin(item)
            # Without waiting: the results of images under way must not wait for an image that is yet to come.
            group = self._next_group() if self._decoded.qsize() >= self._batch else []

    def _next_group(self) -> list[Mapped]:
        """Wait for a batch of images; it is smaller at the end, and then empty."""
        group: list[Mapped] = []
        while len(group) < self._batch and not self._all_taken and not self._stopped:
            item = self._decoded.get()
            if item is None:
                self._all_taken = True
            else:
                group.append(item)
        return group

    def _begin(self, item: Mapped) -> Iterator[TiledImage]:
        if item.picture is None:
            return
        try:
            convert = self._network.converter(item.picture.color.dtype, grey=item.picture.is_grey)
            item.work = self._network.whole_image(network_input(item.picture), convert, batch=self._batch)
            yield from item.work.images()
        except Exception as error:
            item.error = error

    def _report(self, image: TiledImage) -> None:
        for item in self._running:
            if item.work is not None and image in item.work:
                self._progress(item.image, item.work.tiles_done, item.work.tiles)

    def _hand_over(self) -> None:
        """Hand the finished images to the caller, up to the first that is not finished."""
        while self._running and self._running[0].is_done:
            item = self._running.popleft()
            if item.picture is not None and item.work is not None and item.error is None:
                try:
                    large = enlarged(item.picture, item.work.result(), self._network.scale)
                    item.result = self._encode(large, item.image)
                except Exception as error:
                    item.error = error
            item.picture = item.work = None
            self.results.put(item)
