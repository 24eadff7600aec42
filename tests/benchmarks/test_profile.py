"""The profile: what a node took, what it had to, and a loop's own time."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import profile


def event(name: str, op: str, start: int, took: int, ins: list[list[int]], outs: list[list[int]]) -> dict[str, Any]:
    arguments = {
        "op_name": op,
        "input_type_shape": [{"float": shape} for shape in ins],
        "output_type_shape": [{"float": shape} for shape in outs],
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": took, "args": arguments}


def run_of(start: int) -> list[dict[str, Any]]:
    return [
        {"cat": "Session", "name": "model_run", "ts": start, "dur": 1000},
        event("layer", "Conv", start + 1, 200, [[1, 64, 8, 8], [32, 64, 3, 3], [32]], [[1, 32, 8, 8]]),
        event("loop", "Loop", start + 300, 500, [[]], [[4, 16]]),
        event("product", "MatMul", start + 310, 150, [[4, 10], [10, 16]], [[4, 16]]),
        event("product", "MatMul", start + 500, 250, [[4, 10], [10, 16]], [[4, 16]]),
        event("rows", "Gather", start + 900, 50, [[1000, 16], [4]], [[4, 16]]),
    ]


def test_nodes_are_summed_by_run_and_loops_lose_what_is_in_them() -> None:
    warm_up = [{**one, "dur": one["dur"] * 7} for one in run_of(0)]
    nodes = {node["name"]: node for node in profile.nodes_of([*warm_up, *run_of(10_000), *run_of(20_000)])}
    assert list(nodes) == ["loop / product", "layer", "loop", "rows"]
    assert nodes["loop"]["seconds"] == pytest.approx(100e-6)
    assert nodes["loop / product"]["seconds"] == pytest.approx(400e-6)
    assert nodes["loop / product"]["count"] == 2
    assert nodes["loop / product"]["flops"] == 2 * (2 * 4 * 16 * 10)
    assert nodes["layer"]["flops"] == 2 * 32 * 8 * 8 * 64 * 9
    assert nodes["layer"]["bytes"] == 4 * (64 * 64 + 32 * 64 * 9 + 32 + 32 * 64)
    assert nodes["rows"]["bytes"] == 4 * (64 + 4 + 64)  # of the thousand rows four are read
    assert nodes["rows"]["flops"] == nodes["loop"]["bytes"] == 0


def test_nodes_alike_are_one() -> None:
    first, *_ = profile.alike(profile.nodes_of([*run_of(0), *run_of(10_000)]))
    assert (first["name"], first["nodes"], first["count"]) == ("loop / product", 1, 2)
    both = {node["name"]: node for node in profile.nodes_of([*run_of(0), *run_of(10_000)])}
    both["second"] = {**both["layer"], "name": "second"}
    layers = next(node for node in profile.alike(list(both.values())) if node["name"] == "layer")
    assert (layers["nodes"], layers["seconds"]) == (2, pytest.approx(400e-6))
    assert layers["flops"] == 2 * both["layer"]["flops"]


def test_floors_are_of_what_binds_each_node() -> None:
    nodes = [
        {"name": "a", "op": "Conv", "nodes": 1, "count": 1, "seconds": 1.0, "flops": 3e9, "bytes": 1e9},
        {"name": "b", "op": "Add", "nodes": 1, "count": 1, "seconds": 3.0, "flops": 1e3, "bytes": 2e9},
        {"name": "c", "op": "Shape", "nodes": 1, "count": 1, "seconds": 0.001, "flops": 0.0, "bytes": 0.0},
    ]
    row = {"measurements": {"derived": {"nodes": nodes, "flops_per_s": 1e10, "bytes_per_s": 2e9}}}
    first, second, others = profile.table([row])
    assert (first["floor, ms"], second["floor, ms"]) == (500, 1000)
    assert (others["node"], others["nodes"], others["floor, ms"], others["over its floor"]) == ("others", 1, 0, "")
    assert "4 s, 2.67 times their floors" in profile.remarks([row])[0]
