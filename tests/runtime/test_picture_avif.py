"""What an AVIF says of its colors beside its pixels."""

from __future__ import annotations

import io
import logging

import pytest
from PIL import Image

from runtime import cli
from runtime.errors import ImageReadError
from runtime.pictures.avif import check_coding
from runtime.pictures.read import read_bytes
from runtime.pictures.source import Source


@pytest.fixture
def avif() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(file, "AVIF")
    return file.getvalue()


def patched(content: bytes, box: bytes, offset: int, value: int) -> bytes:
    """The file with one byte after a box's name changed."""
    place = content.index(box) + len(box) + offset
    return content[:place] + bytes([value]) + content[place + 1 :]


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused(avif, transfer, name, tmp_path, capsys):
    content = patched(avif, b"colrnclx", 3, transfer)
    with pytest.raises(ImageReadError, match=rf"high dynamic range \({name}\).*avifdec"):
        read_bytes(content)
    (tmp_path / "a.avif").write_bytes(content)
    assert cli.main(["upscale", str(tmp_path / "a.avif"), "-o", str(tmp_path / "b.png")]) == 1
    assert "a.avif holds colors of high dynamic range" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


def test_more_than_8_bits_are_spoken_of(avif, caplog):
    with caplog.at_level(logging.WARNING, "ignn"):
        assert len(read_bytes(avif).frames) == 1
        assert not caplog.messages
        # The pixels of this file have 8 bits still, so Pillow would refuse it.
        check_coding(Source("The picture", patched(avif, b"av1C", 2, avif[avif.index(b"av1C") + 6] | 0x40)))
    assert caplog.messages == ["The picture: an AVIF of 10 or 12 bits is read with 8"]
