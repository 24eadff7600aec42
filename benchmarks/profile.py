"""Where a run's time goes: every node, or nodes alike, above 1 % of it, beside its floor.

A node's floor is the longer of its operations at the measured peak of float32 products and of its bytes, each read or
written once, at the measured bandwidth. A loop's own time is without that of the nodes in it.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import subjects
from runtime.commands.measure import compare

SHARE = 0.01
"""Nodes that take less are one line together."""
_RUNS = 3
_BYTES = {"float": 4, "float16": 2, "double": 8, "int64": 8, "int32": 4, "uint8": 1, "int8": 1, "bool": 1}
_PRODUCTS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Shape", "Identity", "Loop", "If"}
_MOVES = {"Gather", "GatherND", "GatherElements", "Slice", "Transpose", "Concat", "Split", "Pad", "Expand", "Cast"} | {
    "ReorderInput", "ReorderOutput", "DepthToSpace", "SpaceToDepth", "ScatterND", "ScatterElements", "Where"
}  # fmt: skip
_PARTS = {"Gather", "GatherND", "GatherElements", "Slice"}
"""They read no more of their first input than they write."""


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    name, size = ("tiny", 32) if quick else ("ignn-s", 256)
    return [
        {"model": name, "height": size, "width": size, "threads": threads, "megabytes": 8 if quick else 128}
        | {"model_sha256": subjects.sha256(subjects.onnx_file(name))}
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Profile one configuration, then measure what the machine can do."""
    size = {key: config[key] for key in ("height", "width", "threads")}
    peaks = {"threads": config["threads"], "megabytes": config["megabytes"]}
    collected: dict[str, Any] = {}

    def outputs(workers: Any) -> dict[str, float]:  # noqa: ANN401
        for name, worker in workers.items():
            collected[name] = worker.output()
        return {}

    found = compare(
        {
            "profiled": (profiled, {**size, "model": str(subjects.onnx_file(config["model"]))}),
            "machine": (machine_peaks, peaks),
        },
        outputs=outputs,
        budget_s=0,
        min_rounds=0,  # each warms up by itself
        max_rounds=1,
    )
    (flops, bandwidth), nodes = collected["machine"], collected["profiled"]
    flops = max(flops, *(node["flops"] / node["seconds"] for node in nodes if node["op"] in _PRODUCTS))
    found["derived"] = {"flops_per_s": flops, "bytes_per_s": bandwidth, "nodes": nodes}
    return found


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return no targets: the table is the result."""
    return []


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines = []
    for row in rows:
        derived = row["measurements"]["derived"]
        nodes = derived["nodes"]
        total = sum(node["seconds"] for node in nodes)
        shown = [node for node in nodes if node["seconds"] >= SHARE * total]
        rest = [node for node in nodes if node["seconds"] < SHARE * total]
        for node in [*shown, _sum("others", rest)]:
            floor = _floor(node.get("parts", [node]), derived)
            lines.append(
                {
                    "node": node["name"],
                    "op": node["op"],
                    "nodes": node["nodes"],
                    "times": node["count"],
                    "time, ms": node["seconds"] * 1e3,
                    "share": node["seconds"] / total,
                    "GFLOP": node["flops"] / 1e9,
                    "MB": node["bytes"] / 1e6,
                    "floor, ms": floor * 1e3,
                    "over its floor": node["seconds"] / floor if floor else "",
                }
            )
    return lines


def _floor(nodes: list[dict[str, Any]], peaks: dict[str, float]) -> float:
    return sum(max(node["flops"] / peaks["flops_per_s"], node["bytes"] / peaks["bytes_per_s"]) for node in nodes)


def _sum(name: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "op": "", "parts": nodes} | {
        key: sum(node[key] for node in nodes) for key in ("nodes", "count", "seconds", "flops", "bytes")
    }


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Return the sum of all nodes, and what the machine can do."""
    found = []
    for row in rows:
        derived = row["measurements"]["derived"]
        seconds, floor = sum(node["seconds"] for node in derived["nodes"]), _floor(derived["nodes"], derived)
        found.append(
            f"All nodes: {seconds:.3g} s, {seconds / floor:.2f} times their floors. Measured peaks: "
            f"{derived['flops_per_s'] / 1e9:.0f} GFLOP/s (a product of matrices, or the fastest of these nodes), "
            f"{derived['bytes_per_s'] / 1e9:.1f} GB/s (a sum of two arrays)."
        )
    return found


def profiled(model: str, height: int, width: int, threads: int) -> Callable[[], list[dict[str, Any]]]:
    """Return a call that profiles some runs, and gives the nodes, those of most time first, per run."""
    from runtime.backends.onnx_runtime import onnxruntime
    from runtime.backends.ort import run_options, session_options

    lr = subjects.lr_input(height, width)

    def run() -> list[dict[str, Any]]:
        options = session_options()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            for _ in range(1 + _RUNS):
                session.run(None, {"lr": lr}, run_options())
            events = json.loads(Path(session.end_profiling()).read_text())
        return alike(nodes_of(events))

    return run


def nodes_of(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a profile's nodes took in a run: the mean of all runs but the first.

    Args:
        events: of ONNX Runtime's profile.
    """
    events = list(events)
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run")[1:]
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    nodes: dict[tuple[str, ...], dict[str, Any]] = {}
    for first, last in runs:
        open_loops: list[tuple[float, dict[str, Any]]] = []
        inside = sorted((e for e in kernels if first <= e["ts"] <= last), key=lambda e: (e["ts"], -e["dur"]))
        for event in inside:
            while open_loops and event["ts"] >= open_loops[-1][0]:
                open_loops.pop()
            parents = [node["name"] for _, node in open_loops]
            name, op = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
            path = " / ".join([*parents[-1:], name])
            node = nodes.setdefault((path, op), {"name": path, "op": op, "count": 0, "seconds": 0.0} | _NOTHING)
            seconds = event["dur"] / 1e6 / len(runs)
            node["count"] += 1 / len(runs)
            node["seconds"] += seconds
            for key, value in _cost(op, event["args"]).items():
                node[key] += value / len(runs)
            if open_loops:
                open_loops[-1][1]["seconds"] -= seconds
            if op in ("Loop", "If"):
                open_loops.append((event["ts"] + event["dur"], node))
    for node in nodes.values():
        node["count"] = round(node["count"])
    return sorted(nodes.values(), key=lambda node: -node["seconds"])


def alike(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return nodes of one operator and of the same cost as one, named like the first; those of most time first."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for node in nodes:
        cost = (node["flops"] / node["count"], node["bytes"] / node["count"])
        key = (node["op"], *(cost if any(cost) else [re.sub(r"\d+", "", node["name"])]))
        if key not in groups:
            groups[key] = {**node, "nodes": 1}
            continue
        groups[key]["nodes"] += 1
        for name in ("count", "seconds", "flops", "bytes"):
            groups[key][name] += node[name]
    return sorted(groups.values(), key=lambda node: -node["seconds"])


_NOTHING = {"flops": 0.0, "bytes": 0.0}


def _cost(op: str, arguments: dict[str, Any]) -> dict[str, float]:
    """Return the operations and the bytes of one call of a node, by the shapes of its values."""

    def values(which: str) -> list[tuple[str, list[int]]]:
        return [next(iter(value.items())) for value in arguments[which]]

    inputs, outputs = values("input_type_shape"), values("output_type_shape")
    written = math.prod(outputs[0][1]) if outputs else 0
    if op in _VIEWS:
        return _NOTHING
    if op in _PRODUCTS:
        per_value = math.prod(inputs[1][1][1:]) if "Conv" in op else inputs[0][1][-1]
        flops = 2.0 * written * per_value
    else:
        flops = 0.0 if op in _MOVES else float(max([written, *(math.prod(shape) for _, shape in inputs)]))
    sizes = [math.prod(shape) * _BYTES.get(kind, 4) for kind, shape in inputs]
    result = sum(math.prod(shape) * _BYTES.get(kind, 4) for kind, shape in outputs)
    if op in _PARTS:
        sizes[0] = min(sizes[0], result)
    return {"flops": flops, "bytes": float(sum(sizes) + result)}


def machine_peaks(threads: int, megabytes: int) -> Callable[[], tuple[float, float]]:
    """Return a call that gives float32 operations a second (a product of matrices) and bytes a second (a sum)."""
    from onnx import TensorProto, helper

    from runtime.backends.onnx_runtime import onnxruntime

    def operator(op: str, shape: tuple[int, ...]) -> Callable[[], float]:
        """Return a call that runs the operator on two arrays and gives its seconds."""
        names = ("a", "b", "c")
        a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names)
        graph = helper.make_graph([helper.make_node(op, ["a", "b"], ["c"])], op, [a, b], [c])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        arrays = [np.ones(shape, np.float32) for _ in names]
        for name, array in zip(names[:2], arrays, strict=False):
            binding.bind_cpu_input(name, array)
        binding.bind_output("c", "cpu", 0, np.float32, shape, arrays[2].ctypes.data)

        def seconds(result: NDArray[np.float32] = arrays[2]) -> float:  # it lives as long as the binding
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            return time.perf_counter() - start

        return seconds

    side, values = 1024, megabytes * 1_000_000 // 12
    multiply, add = operator("MatMul", (side, side)), operator("Add", (values,))

    def run() -> tuple[float, float]:
        return 2 * side**3 / min(multiply() for _ in range(30)), 12 * values / min(add() for _ in range(30))

    return run
