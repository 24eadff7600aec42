"""Damaged files, as Hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Return the file with up to four bytes changed, and its end cut off."""
    result = bytearray(content)
    stop = data.draw(st.integers(0, len(result)))
    for _ in range(data.draw(st.integers(0, 4))):
        result[data.draw(st.integers(0, len(result) - 1))] = data.draw(st.integers(0, 255))
    return bytes(result[:stop])
