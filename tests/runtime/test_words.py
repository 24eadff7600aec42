"""What is said of many files is said once, with a count."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
from PIL import Image

from runtime import cli
from runtime.commands.words import said_once

logger = logging.getLogger("ignn")


def test_a_batch_says_a_word_once_with_a_count(x2_model, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    for index in range(3):
        image = Image.fromarray(np.full((12, 16, 4), 20 * index, np.uint8), "CMYK")
        image.save(tmp_path / "in" / f"{index}.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    options = ["--format", "gif", "--model", str(x2_model)]
    assert cli.main(["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *options]) == 0
    lost = "EXIF and the resolution left out, which GIF does not hold"
    said = sorted(re.sub(r"^\d\.gif", "FILE", text) for text in caplog.messages)  # several threads write
    color = "CMYK converted to RGB without a profile"
    assert said == [f"2 more: {color}", f"2 more: {lost}", color, f"FILE: {lost}"]


def test_frames_of_one_file_count_once(caplog):
    with said_once():
        for name in ("a.gif", "a.gif", "b.gif", "b.gif"):
            logger.warning("%s: reduced to %d bits", name, 8)
        logger.warning("%s: reduced to %d bits", "c.gif", 16)
    assert caplog.messages == ["a.gif: reduced to 8 bits", "c.gif: reduced to 16 bits", "1 more: reduced to 8 bits"]


def test_the_count_is_said_after_an_error(caplog):
    with pytest.raises(ValueError, match="broken"), said_once():  # noqa: PT012 - what is said before it
        logger.warning("LAB converted")
        logger.warning("LAB converted")
        raise ValueError("broken")
    logger.warning("LAB converted")
    assert caplog.messages == ["LAB converted", "1 more: LAB converted", "LAB converted"]
