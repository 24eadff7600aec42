"""Results files: shape, resuming, refusing; the pages made from them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cards, peers, plots, report, results
from benchmarks.__main__ import main
from benchmarks.results import Results, ResultsError, check, environment, key_of, read, target
from runtime.models import bundled_models

TIMES = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "min": 1.0, "max": 1.0}
FOUND = {"rounds": 3, "warm_up_s": 1.0, "wall_s": TIMES, "cpu_s": TIMES, "stages_s": {}, "peak_bytes": 10**8}
FIT = {"constant_bytes": 1e8, "bytes_per_pixel": 1.0, "largest_deviation": 0.0}
MEASUREMENTS = {"alternatives": {"a": FOUND}, "against": None, "ratios": {}, "derived": FIT}
CONFIG = {"model": "ignn-s", "sizes": [64], "threads": 1}


def written(path: Path, name: str = "memory", **differing: Any) -> Results:
    file = Results(path, name, {**environment(1), **differing})
    file.add(CONFIG, MEASUREMENTS, (0.1, 0.2, 0.3))
    return file


def test_a_run_resumes(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    written(path)
    again = Results(path, "memory", environment(1))
    assert CONFIG in again
    assert {**CONFIG, "threads": 2} not in again
    other = {**CONFIG, "model_sha256": "1"}
    again.add(other, MEASUREMENTS, (0.1, 0.2, 0.3))
    again.finish([other], lambda rows: [target("few rows", len(rows), 1)])
    document = read(path)
    assert [row["config"] for row in document["rows"]] == [other]  # that of the earlier model file is gone
    assert document["targets"][0]["met"]
    assert CONFIG not in Results(path, "memory", environment(1), fresh=True)


@pytest.mark.parametrize(
    ("differing", "said"),
    [
        ({"cpu": "another"}, "cpu: another, now"),
        ({"threads": 7}, "threads: 7, now 1"),
        ({"libraries": {}}, "numpy: None, now"),
    ],
)
def test_rows_of_another_environment_are_refused(tmp_path: Path, differing: dict[str, Any], said: str) -> None:
    path = tmp_path / "memory.json"
    written(path, **differing)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=said):
        Results(path, "memory", environment(1))
    assert path.read_bytes() == before


def test_shape_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    good = written(path).document
    good["targets"] = [target("g", 2.0, 1.0)]
    check(good)

    def refused(change: str) -> None:
        bad = copy.deepcopy(good)
        exec(change, {"d": bad, "row": bad["rows"][0]})
        with pytest.raises((KeyError, TypeError, ValueError)):
            check(bad)

    for change in (
        "del d['environment']['cpu']",
        "row['key'] = '0' * 16",
        "row['config']['threads'] = 2",
        "row['load_average'] = []",
        "row['measured_at'] = 'yesterday'",
        "row['measurements']['alternatives'] = {}",
        "row['measurements']['alternatives']['a']['wall_s']['p50'] = 0.0",
        "row['measurements']['alternatives']['a']['peak_bytes'] = float('nan')",
        "row['measurements']['ratios'] = {'b': {'wall': 1.0}}",
        "d['rows'].append(row)",
        "d['targets'][0]['met'] = True",
    ):
        refused(change)
    path.write_text("{}")
    with pytest.raises(ResultsError, match="Delete it"):
        read(path)


def test_keys_are_of_the_whole_configuration() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def memory_document(folder: Path, *, measured: float = 0.5) -> None:
    file = written(folder / "memory.json")
    file.document["targets"] = [target("memory of it", measured, 1.0, "GB")]
    file.write()


def test_figures_stand_before_their_targets(tmp_path: Path) -> None:
    memory_document(tmp_path)
    text = report.results_section(tmp_path)
    assert "| memory of it | 0.5 GB   | 1 GB            |      |" in text
    assert "python -m benchmarks memory" in text
    assert environment(1)["cpu"] in text.replace("\n", " ")


def test_a_figure_above_its_target_needs_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_document(tmp_path, measured=1.5)
    notes = tmp_path / "notes"
    notes.write_text("{}")
    monkeypatch.setattr(report, "NOTES", notes)
    with pytest.raises(ResultsError, match="'memory of it' is above its target"):
        report.results_section(tmp_path)
    notes.write_text(json.dumps({"memory of it": "It is large."}))
    assert "| It is large. |" in report.results_section(tmp_path)


def test_machines_are_not_mixed_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_document(tmp_path)
    written(tmp_path / "scaling.json", "scaling", cpu="another")
    monkeypatch.setattr(report, "_OF_PERFORMANCE", ("memory", "scaling"))
    with pytest.raises(ResultsError, match="not measured on the same machine"):
        report.performance_section(tmp_path)


def test_a_section_measured_elsewhere_names_its_machine(tmp_path: Path) -> None:
    memory_document(tmp_path)
    assert "another machine" not in report.results_section(tmp_path)
    written(tmp_path / "scaling.json", "scaling", cpu="the newer one")
    text = report.results_section(tmp_path).replace("\n", " ")
    assert text.index("On another machine") < text.index("Time against pixels. ") < text.index("## Key figures")
    assert text.index("## Time against pixels") < text.index("Measured on the newer one")


def pages(repository: Path) -> dict[str, Path]:
    """Both pages, their generated sections out of date."""
    (repository / "runtime" / "models").mkdir(parents=True)
    sections = {"README.md": ("models", "performance"), "benchmarks/README.md": ("results",)}
    found = {}
    for name, inside in sections.items():
        found[name] = repository / name
        found[name].parent.mkdir(exist_ok=True)
        parts = ["\nold\n".join(report.markers(section)) for section in inside]
        found[name].write_text("\n".join(["before", *parts, "after\n"]))
    return found


def test_the_pages_are_made_from_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw", lambda folder: None)
    made = pages(tmp_path)
    report.update_pages(results.FOLDER, tmp_path)
    texts = {name: path.read_text() for name, path in made.items()}
    for text in texts.values():
        assert text.startswith("before\n<!-- ")
        assert text.endswith(" end -->\nafter\n")
        assert "old" not in text.splitlines()
    assert "[**ignn-s-x2**]" in texts["README.md"]
    assert "## Throughput" in texts["benchmarks/README.md"]
    report.update_pages(results.FOLDER, tmp_path)
    assert {name: path.read_text() for name, path in made.items()} == texts


def test_a_page_without_its_markers_stops_before_any_page_changes(tmp_path: Path) -> None:
    made = pages(tmp_path)
    made["benchmarks/README.md"].write_text("text")
    before = made["README.md"].read_text()
    with pytest.raises(ResultsError, match="must hold these two lines"):
        report.update_pages(results.FOLDER, tmp_path)
    assert made["README.md"].read_text() == before
    assert made["benchmarks/README.md"].read_text() == "text"


def section_of(page: Path, name: str) -> str:
    begin, end = report.markers(name)
    return page.read_text(encoding="utf-8").split(f"{begin}\n")[1].split(end)[0]


def test_the_committed_pages_are_up_to_date() -> None:
    root = results.REPOSITORY
    assert section_of(root / "README.md", "models") == report.models_section()
    assert (root / "runtime" / "models" / "models.json").read_text(encoding="utf-8") == report.models_index()
    assert section_of(root / "README.md", "performance") == report.performance_section()
    assert section_of(root / "benchmarks" / "README.md", "results") == report.results_section()


def test_the_models_table_is_of_the_cards_and_the_results() -> None:
    text = report.models_section()
    model = next(model for model in bundled_models() if model.scale == 2)
    row = next(line for line in text.splitlines() if f"[**{model.name}**]" in line)
    for value in model.psnr_y_db.values():
        assert f"{value:.2f}" in row
    (measured,) = (row for row in read(results.FOLDER / "models.json")["rows"] if row["config"]["scale"] == 2)
    assert (measured["config"]["height"], measured["config"]["models_sha256"][model.name]) == (256, model.sha256)
    seconds = measured["measurements"]["alternatives"][model.name]["wall_s"]["p50"]
    assert row.rstrip("| ").endswith(f"{seconds:.3g}")
    assert model.seconds == pytest.approx(seconds)


def test_a_card_that_contradicts_models_json_is_refused(tmp_path: Path) -> None:
    model = bundled_models()[0]
    (tmp_path / f"{model.name}.md").write_text(
        f"# x\n\n## Quality\n\n| method | Set5 |\n| --- | --- |\n| {model.name} | 99.00 / 0.9 |\n\n## Training\n"
    )
    with pytest.raises(ResultsError, match=r"99\.0.*models\.json"):
        cards.read_quality(model, tmp_path)
    with pytest.raises(ResultsError, match="Write the model's card"):
        cards.read_quality(model, tmp_path / "nowhere")


def test_a_cards_cell_may_be_not_measured(tmp_path: Path) -> None:
    model = bundled_models()[0]
    sets = list(model.psnr_y_db)
    rows = {model.name: [f"{value:.2f} / 0.9" for value in model.psnr_y_db.values()]}
    rows["bicubic"] = ["not measured"] * len(sets)
    lines = [["method", *sets], ["---"] * (1 + len(sets)), *([name, *cells] for name, cells in rows.items())]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    (tmp_path / f"{model.name}.md").write_text(f"# x\n\n## Quality\n\n{table}\n")
    scores = cards.read_quality(model, tmp_path)
    assert scores == {model.name: model.psnr_y_db, "bicubic": dict.fromkeys(sets)}


def test_errors_are_messages(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text("no JSON")
    with pytest.raises(ResultsError, match="Delete it and measure again"):
        main(["memory", "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["no_such_benchmark"])


def test_committed_results_are_well_formed() -> None:
    for path in results.FOLDER.glob("*.json"):
        assert read(path)["benchmark"] == path.stem


def peers_file(folder: Path) -> Results:
    file = Results(folder / "peers.json", "peers", environment(1))
    ratio = {"wall_lowest_round": 0.2, "wall_highest_round": 0.6}
    measurements = {
        "alternatives": dict.fromkeys((peers.REFERENCE, "EDSR, exact", "EDSR, rounded"), FOUND),
        "against": peers.REFERENCE,
        "ratios": {
            "EDSR, exact": {"wall": 0.5, "cpu": 0.5, "peak_memory": 2.0, **ratio},
            "EDSR, rounded": {"wall": 0.25, "cpu": 0.25, "peak_memory": 1.0, **ratio},
        },
        "derived": {"difference of EDSR, exact": 1e-4, "difference of EDSR, rounded": 0.9},
        "not_run": {"EDSR, absent": "absent is not installed"},
    }
    file.add({"height": 8, "width": 8}, measurements, (0.1, 0.2, 0.3))
    return file


def test_what_switching_would_bring_is_said_of_float32(tmp_path: Path) -> None:
    (line,) = peers.remarks(peers_file(tmp_path).document["rows"])
    assert "EDSR, exact: 0.50 of the time, 2.0 of the memory of EDSR, ONNX Runtime" in line


def test_the_networks_targets_are_over_edsr_and_over_onnx_runtime() -> None:
    ratios = {
        "net, ONNX Runtime": {"wall": 3.0, "peak_memory": 2.0},
        "net, OpenVINO float32": {"wall": 2.4, "peak_memory": 3.0},
    }
    row = {"config": {"ours": "net", "height": 8, "width": 8}, "measurements": {"ratios": ratios}}
    found = {target["figure"]: (target["measured"], target["met"]) for target in peers.targets([row])}
    assert found == {
        "net, 8 x 8: time over plain EDSR's": (3.0, False),
        "net, OpenVINO float32, 8 x 8: time over ONNX Runtime's": (pytest.approx(0.8), True),
        "net, OpenVINO float32, 8 x 8: memory over ONNX Runtime's": (1.5, False),
    }
    without = row | {"measurements": {"ratios": {"net, ONNX Runtime": ratios["net, ONNX Runtime"]}}}
    assert len(peers.targets([without])) == 1


def test_a_benchmark_without_curves_is_drawn_as_bars(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[bench]'")
    peers_file(tmp_path)
    plots.draw(tmp_path)
    drawn = (tmp_path / "peers.svg").read_text()
    assert "EDSR, exact" in drawn
    assert "absent" not in drawn


def test_sets_that_a_card_lacks_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(model for model in bundled_models() if model.name == "ignn-s-x2")
    plain = replace(first, name="edsr-s-x2", psnr_y_db={"Set5": 37.5, "Manga109": 30.0})
    cards_of = {"ignn-s-x2": cards.read_quality(first), "edsr-s-x2": {"edsr-s-x2": {"Set5": 37.5}, "bicubic": {}}}
    monkeypatch.setattr(report, "read_quality", lambda model: cards_of[model.name])
    monkeypatch.setattr(report, "bundled_models", lambda: [first, plain])
    row = next(line for line in report.models_section().splitlines() if "[**edsr-s-x2**]" in line)
    cells = [cell.strip() for cell in row.split("|")][3:-1]
    assert cells[:2] == [f"{first.size_bytes / 1e6:.1f} MB", "37.50"]
    assert first.seconds is not None  # of the file, which both have here
    assert cells[2:] == ["not measured"] * 3 + [report.shown(first.seconds)]
