"""The scoreboard: goes on where it was killed, compares like with like, and says what was not measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from train import scoreboard, scoreboard_table
from train.scoreboard import Journal, main, summarise

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Two tiny test sets, a peer that repeats pixels (values 0..1), and no bundled model."""
    rng = np.random.default_rng(0)
    for folder, names in (("SetA", "abc"), ("SetB", "d")):
        (tmp_path / folder).mkdir()
        for name in names:
            pixels = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((47, 42), Image.Resampling.BICUBIC).save(tmp_path / folder / f"{name}.png")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, f"{name}_h", f"{name}_w"])
        for name in ("lr", "sr")
    ]
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), "scales")
    nodes = [
        onnx.helper.make_node("Clip", ["lr", "low", "high"], ["unit"]),  # values beyond 1 would not come through
        onnx.helper.make_node("Resize", ["unit", "", "scales"], ["sr"], mode="nearest"),
    ]
    bounds = [onnx.numpy_helper.from_array(np.float32(value), name) for name, value in (("low", 0), ("high", 1))]
    graph = onnx.helper.make_graph(nodes, "nearest", values[:1], values[1:], [scales, *bounds])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, tmp_path / "nearest.onnx")
    monkeypatch.setattr(scoreboard, "bundled_models", list)
    return tmp_path


def run(folder, *more):
    return main(
        ["--run", str(folder / "run"), "--output", str(folder / "board.json"), "--scale", "2",
         "--data", str(folder / "SetA"), "--data", str(folder / "SetB"),
         "--peer", "nearest", "2", "0..1", str(folder / "nearest.onnx"), *more]
    )  # fmt: skip


def board(folder):
    rows = json.loads((folder / "board.json").read_text())["rows"]
    return {(row["method"], row["dataset"], row["images"]): row for row in rows}


def test_means_and_what_they_were_measured_on(sets):
    assert run(sets) == 0
    rows = board(sets)
    assert set(rows) == {(m, *d) for m in ("bicubic", "nearest") for d in (("SetA", 3), ("SetB", 1))}
    lines = [json.loads(line) for line in (sets / "run" / "scores.jsonl").read_text().splitlines()]
    mine = [line["psnr"] for line in lines if (line["method"], line["dataset"]) == ("nearest", "SetA")]
    assert rows["nearest", "SetA", 3]["psnr"] == pytest.approx(np.mean(mine), abs=1e-4)
    assert 15 < rows["nearest", "SetB", 1]["psnr"] < rows["bicubic", "SetB", 1]["psnr"]
    assert len(rows["nearest", "SetB", 1]["model_sha256"]) == 64


def test_it_goes_on_where_it_was_killed(sets, monkeypatch):
    def killed(path, *arguments):
        if path.name == "c.png":
            raise KeyboardInterrupt
        return original(path, *arguments)

    original = scoreboard.score_image
    monkeypatch.setattr(scoreboard, "score_image", killed)
    with pytest.raises(KeyboardInterrupt):
        run(sets)
    assert not (sets / "board.json").exists()
    journal = sets / "run" / "scores.jsonl"
    assert summarise(Journal(journal)) == []  # two of three images are no mean
    kept = journal.read_text()
    journal.write_text(kept + kept.splitlines()[0][:40])  # a line that was torn

    measured = []
    monkeypatch.setattr(scoreboard, "score_image", lambda *a: measured.append(a[0].name) or original(*a))
    assert run(sets) == 0
    assert measured == ["c.png", "d.png", "a.png", "b.png", "c.png", "d.png"]
    assert len(board(sets)) == 4
    measured.clear()
    assert run(sets) == 0
    assert measured == []


def test_a_changed_model_is_measured_again(sets):
    assert run(sets) == 0
    before = board(sets)["nearest", "SetB", 1]["model_sha256"]
    model = onnx.load(sets / "nearest.onnx")
    model.doc_string = "other"
    onnx.save(model, sets / "nearest.onnx")
    assert run(sets) == 0
    assert board(sets)["nearest", "SetB", 1]["model_sha256"] != before


def test_rows_of_a_bundled_model_as_it_was_before_go(sets):
    assert run(sets, "--only", "bicubic") == 0
    content = json.loads((sets / "board.json").read_text())
    (first, *_) = content["rows"]
    content["rows"] += [
        first | {"images": 2, "model_sha256": "of before"},
        first | {"method": "peer of others", "model_sha256": "any"},
    ]
    (sets / "board.json").write_text(json.dumps(content))
    assert run(sets, "--only", "bicubic") == 0
    assert {(method, images) for method, name, images in board(sets) if name == first["dataset"]} == {
        ("bicubic", first["images"]),
        ("peer of others", first["images"]),
    }


def test_scores_of_a_bundled_model_as_it_was_in_between_do_not_count(sets):
    """A model that went back to an earlier file has its scores already: those of the file in between are newer."""
    assert run(sets, "--only", "bicubic") == 0
    before = board(sets)
    journal = sets / "run" / "scores.jsonl"
    lines = [json.loads(line) | {"sha256": "in between", "psnr": 1.0} for line in journal.read_text().splitlines()]
    with journal.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    assert run(sets, "--only", "bicubic") == 0
    assert board(sets) == before


def test_methods_are_compared_on_the_same_images(sets):
    """One method on all images, the other on the first two: the means of the first two of both stand beside them."""
    assert run(sets, "--only", "bicubic") == 0
    assert run(sets, "--only", "nearest", "--limit", "2") == 0
    rows = board(sets)
    assert ("nearest", "SetA", 3) not in rows
    assert {("bicubic", "SetA", 3), ("bicubic", "SetA", 2), ("nearest", "SetA", 2)} <= set(rows)
    assert rows["bicubic", "SetA", 2]["psnr"] != rows["bicubic", "SetA", 3]["psnr"]
    assert run(sets) == 0  # with the whole set of both, the part says nothing more
    assert {(dataset, images) for _, dataset, images in board(sets)} == {("SetA", 3), ("SetB", 1)}
    text = scoreboard_table.table(
        [{**row, "dataset": {"SetA": "Set5", "SetB": "Set14"}[row["dataset"]]} for row in rows.values()], [], 2
    )
    assert "| method | Set5, first 2 of 3 |" in text
    (whole, part) = (line for line in text.splitlines() if line.startswith("| nearest |"))
    assert whole.split("|")[2].strip() == "not measured"
    assert part.split("|")[2].strip() == "{psnr:.2f} / {ssim:.4f}".format(**rows["nearest", "SetA", 2])


def test_the_committed_pages_are_up_to_date():
    for path, text in scoreboard_table.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m train.scoreboard_table"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only", "edsr"], "Supported values are bicubic, nearest"),
        (["--limit", "0"], "at least 1"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--peer", "x", "5", "0..1", "m.onnx"], "Supported scales are 2, 3, 4"),
        (["--peer", "x", "2", "0..1", "none.onnx"], "There is no file none.onnx"),
    ],
)
def test_errors_come_before_measuring(sets, more, message):
    with pytest.raises(UsageError, match=message):
        run(sets, *more)
    assert not (sets / "run").exists()
