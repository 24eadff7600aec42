"""What a server takes from strangers at most."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds of one model on a server; a request beyond one fails alone.

    Attributes:
        max_pixels: largest input, in pixels; of an animation all frames together.
        max_bytes: largest input file, in bytes.
        queue: most requests that wait; the next is refused as unavailable.
        timeout_seconds: longest wait in the queue.
    """

    max_pixels: int = 50_000_000
    max_bytes: int = 64 << 20
    queue: int = 64
    timeout_seconds: int = 120

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise UsageError(
                    f"Invalid {field.name} ({getattr(self, field.name)}). Supported values are whole numbers from 1."
                )
