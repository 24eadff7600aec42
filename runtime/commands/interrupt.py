"""Ctrl-C during long work: it ends after the tile that is running, which is said; a second one ends it at once.

Python handles a signal in the main thread, between two of its own instructions. So the network runs in another thread,
and the main one waits. It waits for a short time, again and again: a signal that comes just before a wait does not end
it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

from ..tiles.mapping import WAKE_SECONDS

Result = TypeVar("Result")

PATIENCE_SECONDS = 1.0
"""How long Ctrl-C waits for the running tile before it says so."""


class _StopError(Exception):
    """Raised in the working thread to end it."""


def run_until_stopped(work: Callable[[Callable[[], None]], Result], cancel: Callable[[], None]) -> Result:
    """Do work in a thread; Ctrl-C ends it, and is raised when it has ended.

    Args:
        work: what to do. It is given a function to call after each tile, which ends the work by an exception.
        cancel: has the tile that is running fail as soon as it can.
    """
    begun, stop, ended = threading.Event(), threading.Event(), threading.Event()
    results: list[Result] = []
    errors: list[BaseException] = []

    def check() -> None:
        if stop.is_set():
            raise _StopError

    def run() -> None:
        begun.wait()
        try:
            results.append(work(check))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="ignn-work", daemon=True).start()
    try:
        begun.set()  # not before a Ctrl-C would be caught here
        _wait_on(ended.wait)
    except BaseException:
        stop.set()
        wait_or_cancel(ended.wait, cancel)
        raise
    if errors:
        raise errors[0]
    return results[0]


def wait_or_cancel(wait: Callable[[float], bool], cancel: Callable[[], None]) -> None:
    """Wait for the running tile, and say so if it takes long; if Ctrl-C comes again, cancel the tile.

    Args:
        wait: waits so many seconds; returns whether the work has ended.
        cancel: has the tile fail as soon as it can.
    """
    try:
        if not wait(PATIENCE_SECONDS):
            sys.stderr.write("ignn upscale: stopping after the tile that is running (Ctrl-C again: at once)\n")
            _wait_on(wait)
    except KeyboardInterrupt:
        cancel()
        _wait_on(wait)


def _wait_on(wait: Callable[[float], bool]) -> None:
    while not wait(WAKE_SECONDS):
        pass


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """In the block, have a request to end do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
