"""An ICC profile of a press, which Pillow cannot make."""

from __future__ import annotations

import struct


def cmyk_profile() -> bytes:
    """A press whose paper is bright and whose inks are all greenish: a table of the 16 mixtures, to Lab, of ICC 2."""
    lab = bytearray()
    for mixture in range(16):  # the last channel, black, changes fastest
        cyan, magenta, yellow, black = (mixture >> shift & 1 for shift in (3, 2, 1, 0))
        ink = (cyan + magenta + yellow) * 20 + black * 90
        lab += bytes([max(0, 250 - 2 * ink), 128 - min(ink, 60), 128])
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (index % 4 == 0) for index in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(lab) + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"press" + bytes(78)
    tags = {b"desc": text, b"wtpt": white, b"A2B0": table, b"cprt": b"text" + bytes(4) + b"CC0\0"}
    place, entries, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        entries += name + struct.pack(">II", place + len(body), len(data))
        body += data
    head = bytes(8) + b"\x02\x40\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    rest = head + struct.pack(">I", len(tags)) + entries + body
    return struct.pack(">I", len(rest)) + rest[4:]
