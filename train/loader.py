"""Batches cut ahead of the network by threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from torch import Tensor

Batch = tuple[Tensor, ...]
_AHEAD_PER_WORKER = 2


class BatchLoader:
    """Yields `make(step)` for consecutive steps; which thread made a batch changes nothing in it.

    Attributes:
        seconds_waiting: how long `next_batch` has waited for batches so far.
    """

    def __init__(self, make: Callable[[int], Batch], first_step: int, workers: int) -> None:
        self.seconds_waiting = 0.0
        self._make, self._next_step = make, first_step
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
        self._queue: deque[Future[Batch]] = deque()
        for _ in range(_AHEAD_PER_WORKER * workers):
            self._submit()

    def _submit(self) -> None:
        self._queue.append(self._pool.submit(self._make, self._next_step))
        self._next_step += 1

    def next_batch(self) -> Batch:
        """Return the next step's batch, waiting for it if need be."""
        started = time.perf_counter()
        batch = self._queue.popleft().result()
        self.seconds_waiting += time.perf_counter() - started
        self._submit()
        return batch

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
