"""Quality by time: what is measured, what is refused, and which methods are worth taking."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import quality_per_second as quality
from benchmarks.results import REPOSITORY
from runtime.errors import UsageError
from runtime.models import FOLDER
from train.data import make_lr, read_rgb
from train.metrics import psnr, to_uint8


def test_the_frontier_is_what_no_other_beats() -> None:
    derived = {
        name: {"seconds_per_megapixel": seconds, "psnr_y_db": psnr}
        for name, seconds, psnr in (
            ("better", 9.0, 31.0),
            ("bicubic", 0.1, 27.0),
            ("slow", 5.0, 29.9),
            ("fast", 1.0, 30.0),
            ("best", 20.0, 31.5),
        )
    }
    assert quality.frontier(derived) == ["bicubic", "fast", "better", "best"]
    rows = [{"config": {"data": "Set", "images": ["a"], "crop": 8}, "measurements": {"derived": derived}}]
    lines = {line["method"]: line for line in quality.table(rows)}
    assert lines["slow"]["faster and no worse"] == "fast"
    assert lines["best"]["faster and no worse"] == ""
    assert "slow" not in quality.remarks(rows)[0]
    assert quality.curves(rows)["lines"]["none is faster and better"][1] == (1.0, 30.0)


def test_methods_enlarge_and_are_told_from_one_another() -> None:
    hr = read_rgb(REPOSITORY / "assets" / "sample.png")[40:104, 40:104]
    lr, _ = make_lr(hr, quality.SCALE)
    model = str(FOLDER / "edsr-s-x2.onnx")
    scores = []
    for plus in (False, True):
        results = [quality.bicubic([lr, lr], 1, plus)(), quality.network([lr, lr], 1, plus, model, "")()]
        scores.append([psnr(to_uint8(second), hr, quality.SCALE) for _, second in results])
    (bicubic, network), (_, network_plus) = scores
    assert 20 < bicubic < network < network_plus < 60


def test_images_are_the_first_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (config,) = quality.cases(1, quick=False, data=tmp_path, limit=2)
    assert config["images"] == ["a/c.png", "b.png"]
    assert config["data"] == tmp_path.name
    assert str(tmp_path) not in str(config)  # files are committed


def test_errors_are_messages(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data FOLDER"):
        quality.cases(1, quick=False)
    with pytest.raises(UsageError, match=r"Invalid --limit \(0\)"):
        quality.cases(1, quick=False, data=REPOSITORY / "assets", limit=0)
    with pytest.raises(UsageError, match=r"Invalid --peer \(IMDN 0\.\.2 "):
        quality.cases(1, quick=True, peers=(("IMDN", "0..2", FOLDER / "edsr-s-x2.onnx"),))
    with pytest.raises(UsageError, match=r"Invalid --peer .*nothing\.onnx"):
        quality.cases(1, quick=True, peers=(("IMDN", "0..1", tmp_path / "nothing.onnx"),))
