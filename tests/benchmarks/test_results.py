"""Results files: shape, resuming, refusing; the README's section made from them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers, report, results
from benchmarks.__main__ import main
from benchmarks.results import Results, ResultsError, check, environment, goal, key_of, read

TIMES = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "min": 1.0, "max": 1.0}
FOUND = {"rounds": 3, "warm_up_s": 1.0, "wall_s": TIMES, "cpu_s": TIMES, "stages_s": {}, "peak_bytes": 10**8}
MEASUREMENTS = {"alternatives": {"a": FOUND}, "against": None, "ratios": {}, "derived": {}}
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
    again.finish([other], lambda rows: [goal("few rows", len(rows), 1)])
    document = read(path)
    assert [row["config"] for row in document["rows"]] == [other]  # that of the earlier model file is gone
    assert document["goals"][0]["met"]
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
    good["goals"] = [goal("g", 2.0, 1.0)]
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
        "d['goals'][0]['met'] = True",
    ):
        refused(change)
    path.write_text("{}")
    with pytest.raises(ResultsError, match="Delete it"):
        read(path)


def test_keys_are_of_the_whole_configuration() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def memory_document(folder: Path, *, measured: float = 0.5) -> None:
    file = written(folder / "memory.json")
    file.document["goals"] = [goal("memory of it", measured, 1.0, "GB")]
    file.write()


def readme(folder: Path) -> Path:
    path = folder / "README.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    return path


def test_the_section_is_made_from_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw", lambda folder: None)
    memory_document(tmp_path)
    path = readme(tmp_path)
    report.update_readme(tmp_path, path)
    text = path.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert "| memory of it | 1 GB    | 0.5 GB   | met |" in text
    assert environment(1)["cpu"] in text
    report.update_readme(tmp_path, path)
    assert path.read_text() == text


def test_a_missed_goal_needs_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_document(tmp_path, measured=1.5)
    reasons = tmp_path / "reasons"
    reasons.write_text("{}")
    monkeypatch.setattr(report, "REASONS", reasons)
    with pytest.raises(ResultsError, match="'memory of it' is missed"):
        report.section(tmp_path)
    reasons.write_text(json.dumps({"memory of it": "it is large"}))
    assert "missed: it is large" in report.section(tmp_path)


def test_machines_are_not_mixed(tmp_path: Path) -> None:
    memory_document(tmp_path)
    written(tmp_path / "scaling.json", "scaling", cpu="another")
    with pytest.raises(ResultsError, match="not measured on the same machine"):
        report.section(tmp_path)


def test_a_readme_without_the_section_is_left_alone(tmp_path: Path) -> None:
    memory_document(tmp_path)
    path = tmp_path / "README.md"
    path.write_text("text")
    with pytest.raises(ResultsError, match="must hold these two lines"):
        report.update_readme(tmp_path, path)
    assert path.read_text() == "text"


def test_errors_are_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "memory.json").write_text("no JSON")
    assert main(["memory", "--output", str(tmp_path)]) == 1
    assert "Delete it and measure again" in capsys.readouterr().err
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


def test_a_benchmark_without_curves_is_drawn_as_bars(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[bench]'")
    peers_file(tmp_path)
    report.draw(tmp_path)
    drawn = (tmp_path / "peers.svg").read_text()
    assert "EDSR, exact" in drawn
    assert "absent" not in drawn
