"""The progress bar of `ignn upscale`: it moves with every tile, for one picture as for many."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


class FileProgress:
    """A bar that counts files, with the share that is done of those under way; or the tiles or frames of a single file.

    Args:
        bar: what is shown.
        done: files that are done already.
        single: count what `part` is told of, and not files.
    """

    def __init__(self, bar: tqdm, *, done: int, single: bool) -> None:
        self._bar, self._files, self._single = bar, done, single
        self._lock = threading.Lock()
        self._pixels, self._start = 0, time.monotonic()
        self._shares: dict[object, float] = {}

    def part(self, file: object, done: int, total: int) -> None:
        """Show that so many of a file's tiles or frames are done; `total` is 0 if it is not known."""
        with self._lock:
            if self._single:
                self._bar.total = total or None
                self._show(done)
            elif total:
                self._shares[file] = min(1, done / total)
                self._show(round(self._files + sum(self._shares.values()), 1))

    def file(self, file: object, pixels: int) -> None:
        """Show that a file is written, with so many pixels, or has failed."""
        with self._lock:
            self._pixels += pixels
            self._files += 1
            self._shares.pop(file, None)
            rate = self._pixels / 1e6 / (time.monotonic() - self._start)
            self._bar.set_postfix_str(f"{rate:.2f} MP/s", refresh=False)
            if not self._single:
                done = self._files + sum(self._shares.values())
                self._show(round(done, 1) if self._shares else self._files)

    def _show(self, done: float) -> None:
        self._bar.n = done
        self._bar.update(0)


@contextmanager
def file_progress(total: int, *, done: int, part: str | None = None) -> Iterator[FileProgress]:
    """Show a bar of `total` files, `done` of which are done already; nothing where there is no terminal.

    Args:
        total: how many files there are.
        done: how many are done already.
        part: what is counted of a single file, such as `tile`; None: files are counted.
    """
    with (
        logging_redirect_tqdm([logging.getLogger()]),
        tqdm(total=total if part is None else None, initial=done, unit=part or "file", disable=None) as bar,
    ):
        yield FileProgress(bar, done=done, single=part is not None)
