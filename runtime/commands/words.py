"""What is said of files while they are enlarged, such as what was left out: once a run, with a count at the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMED = "%s: "
"""Begin of the words that name their file."""


class _Once(logging.Filter):
    """Lets each word through once, whichever file it is said of, and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._names: dict[str, set[object]] = {}
        self.more: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the word is new."""
        name: object = object()  # of a word that names no file: each is another
        text = record.getMessage()
        if record.msg.startswith(_NAMED) and isinstance(record.args, tuple):
            name = record.args[0]
            text = text.removeprefix(_NAMED % (name,))
        with self._lock:
            first = text not in self._names
            names = self._names.setdefault(text, set())
            if not first and name not in names:
                self.more[text] = self.more.get(text, 0) + 1
            names.add(name)
        return first


@contextmanager
def said_once() -> Iterator[None]:
    """Say each word once within this block, and behind it how often it was true besides."""
    logger, once = logging.getLogger("ignn"), _Once()
    logger.addFilter(once)
    try:
        yield
    finally:
        logger.removeFilter(once)
        for text, count in once.more.items():
            logger.warning("%d more: %s", count, text)
