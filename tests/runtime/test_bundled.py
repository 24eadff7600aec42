"""The models that ship: whole, described, and better than bicubic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import SuperResolver
from runtime.models import FOLDER, BundledModel, bundled_models

ROOT = Path(__file__).resolve().parents[2]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.mark.parametrize("model", bundled_models(), ids=lambda model: model.name)
def test_is_whole_and_has_a_card_with_its_numbers(model: BundledModel) -> None:
    assert model.checked_path()
    card = (FOLDER / f"{model.name}.md").read_text()
    assert model.license in card
    for value in model.psnr_y_db.values():
        assert f"{value:.2f} /" in card


def test_no_other_network_lies_beside_them() -> None:
    """A wheel takes whatever lies there."""
    assert {path.name for path in FOLDER.glob("*.onnx")} == {model.file for model in bundled_models()}


def test_the_default_is_x2_and_beats_bicubic_on_the_sample() -> None:
    upscale = SuperResolver()
    assert upscale.scale == 2
    with Image.open(ROOT / "assets" / "sample.png") as image:
        large = image.convert("RGB")
    large = large.crop((0, 0, large.width // 2 * 2, large.height // 2 * 2))
    small = large.resize((large.width // 2, large.height // 2), Image.Resampling.BICUBIC)
    ours, bicubic = upscale(small), small.resize(large.size, Image.Resampling.BICUBIC)
    assert psnr(np.asarray(ours), np.asarray(large)) > psnr(np.asarray(bicubic), np.asarray(large)) + 1


def test_tiles_of_the_network_with_a_graph_are_exact(caplog: pytest.LogCaptureFixture) -> None:
    """The real network, halo and window in ONNX Runtime, on a strip of the sample that is wider than two halos."""
    with Image.open(ROOT / "assets" / "sample.png") as image:
        photograph = np.asarray(image.convert("RGB"))
    strip = np.concatenate([photograph[20:44], photograph[60:84, ::-1], photograph[100:124]], axis=1)[:, :560]
    tiled = SuperResolver("ignn-s-x2", tile=140)
    assert {segment.crop_length for segment in tiled.network.plan(*strip.shape[:2]).columns} == {248, 356}
    difference = np.abs(SuperResolver("ignn-s-x2", tile=None)(strip).astype(int) - tiled(strip))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert not caplog.records


@pytest.mark.shared
def test_the_default_reaches_its_figure_on_set5(shared: Path) -> None:
    from train.evaluate import evaluate, load_upscaler, summarise

    model = bundled_models()[0]
    upscale, scale = load_upscaler(FOLDER / model.file)
    scores = summarise(evaluate({model.name: upscale}, [shared / "data" / "Set5"], scale))
    found = {row["method"]: row["psnr"] for row in scores}
    assert found["bicubic"] == pytest.approx(33.67, abs=0.01)
    assert found[model.name] == pytest.approx(model.psnr_y_db["Set5"], abs=0.01)
    assert found[model.name] > 36.5
