"""Named errors of training; those of files, options and pictures are `runtime.errors`'."""

from __future__ import annotations

from runtime.errors import IgnnError


class CheckpointError(IgnnError, ValueError):
    """The file is not a checkpoint that can be used here. The message says what it is instead, and what to give."""


class TrainingError(IgnnError):
    """The training cannot go on; the last good checkpoint is kept. The message says what to change."""
