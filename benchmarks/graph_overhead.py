"""The network against its own convolutions alone, in turns: the difference is what the graph costs.

"Convolutions alone" is the exported file in which each `ignn` node is an Expand of a few values to the shape of its
output, and what sums up the folded neighbors at high resolution is gone too: every convolution remains, on the same
shapes, with its activation and residual sum. For PyTorch it is the same, written out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from benchmarks import subjects
from benchmarks.results import target
from runtime.commands.measure import Factory, compare

if TYPE_CHECKING:
    import onnx
    import torch

    from train import IGNN

LIMITS = {"ignn": 1.10, "ignn-s": 1.35, "tiny": 1.35}
ALONE = "convolutions alone"


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    models = [("tiny", 48)] if quick else [("ignn-s", 256), ("ignn", 128)]
    return [
        {"runtime": runtime, "model": name, "height": size, "width": size, "threads": threads}
        | {"model_sha256": subjects.sha256(subjects.onnx_file(name, random_weights=True))}
        | {"budget_s": 1 if quick else 120}
        for name, size in models
        for runtime in ("ONNX Runtime", "PyTorch")
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure one configuration."""
    size = {key: config[key] for key in ("height", "width", "threads")}
    alternatives: dict[str, tuple[Factory, dict[str, Any]]]
    if config["runtime"] == "PyTorch":
        arguments = {**size, "name": config["model"]}
        alternatives = {"model": (subjects.pytorch, arguments), ALONE: (pytorch_convolutions, arguments)}
    else:
        model = subjects.onnx_file(config["model"], random_weights=True)
        alternatives = {
            "model": (subjects.onnx_runtime, {**size, "model": str(model)}),
            ALONE: (subjects.onnx_runtime, {**size, "model": str(convolutions_file(model))}),
        }
    return compare(alternatives, against=ALONE, budget_s=config["budget_s"])


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one target a row, with what was measured."""
    found = []
    for row in rows:
        config, ratio = row["config"], row["measurements"]["ratios"]["model"]
        what = f"{config['model']}, {config['height']} x {config['width']}, {config['runtime']}"
        found.append(target(f"{what}: time over its convolutions alone", ratio["wall"], LIMITS[config["model"]]))
    return found


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines = []
    for row in rows:
        config, found = row["config"], row["measurements"]
        ratio, wall = found["ratios"]["model"], {k: v["wall_s"]["p50"] for k, v in found["alternatives"].items()}
        lines.append(
            {
                "runtime": config["runtime"],
                "model": config["model"],
                "LR": f"{config['height']} x {config['width']}",
                "model, s": wall["model"],
                "convolutions, s": wall[ALONE],
                "ratio": ratio["wall"],
                "of CPU time": ratio["cpu"],
                "lowest round": ratio["wall_lowest_round"],
                "highest": ratio["wall_highest_round"],
                "rounds": found["alternatives"]["model"]["rounds"],
            }
        )
    return lines


def convolutions_file(model: Path) -> Path:
    """Write the model's convolutions alone beside it and return that file."""
    import onnx

    path = subjects.CACHE / f"{model.stem}-convolutions.onnx"
    subjects.CACHE.mkdir(parents=True, exist_ok=True)
    onnx.save(convolutions_alone(onnx.load(model)), path)
    return path


def convolutions_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the graph by operators that cost next to nothing; see the module's docstring.

    Raises:
        ValueError: if a convolution would be lost.
    """
    graph = model.graph
    convolutions = [node.output[0] for node in graph.node if node.op_type == "Conv"]
    nodes: list[onnx.NodeProto] = []
    folded: set[str] = set()
    sums: set[str] = set()
    for node in graph.node:
        if node.op_type == "WindowedKnn":
            nodes += _cheap(node, _EDGE, k=_attribute(node, "k"))
        elif node.op_type == "AdaPNGather":
            # Another row for each neighbor, or equal convolutions of equal maps would be merged into one.
            nodes += _cheap(node, _FOLDED, scale=_attribute(node, "scale"), row=len(folded), end=len(folded) + 1)
            folded.add(node.output[0])
        else:
            reached = folded | sums
            if node.op_type == "Conv" and node.input[0] in sums:
                node.input[0] = min(folded)
            elif node.op_type != "Conv" and reached & set(node.input):
                sums |= set(node.output)
            nodes.append(node)
    kept = _alive(nodes, {value.name for value in graph.output})
    if [node.output[0] for node in kept if node.op_type == "Conv"] != convolutions:
        raise ValueError("A convolution got lost: the exported graph has changed; adapt benchmarks/graph_overhead.py.")
    used = {name for node in kept for name in node.input}
    initializers = [item for item in graph.initializer if item.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:], model.functions[:]
    graph.node.extend(kept)
    graph.initializer.extend(initializers)
    return model


_EDGE = """
  {p}k = Constant <value_ints = [{k}]> ()
  {p}zero = Constant <value_ints = [0, 0]> ()
  {p}one = Constant <value_ints = [1, 1]> ()
  {p}maps = Constant <value_ints = [2, 3]> ()
  {p}two = Constant <value_ints = [2]> ()
  {p}axis = Constant <value_ints = [1]> ()
  {p}ne = Shape <start = 0, end = 1> ({0})
  {p}e = Shape <start = 1, end = 2> ({0})
  {p}hw = Shape <start = 2, end = 4> ({0})
  {p}m = Div ({p}hw, {p}two)
  {p}shape = Concat <axis = 0> ({p}ne, {p}k, {p}e, {p}m)
  {p}a = Slice ({0}, {p}zero, {p}one, {p}maps)
  {p}b = Slice ({1}, {p}zero, {p}one, {p}maps)
  {p}c = Sub ({p}a, {p}b)
  {p}d = Unsqueeze ({p}c, {p}axis)
  {out} = Expand ({p}d, {p}shape)
"""
_FOLDED = """
  {p}from = Constant <value_ints = [{row}, 0]> ()
  {p}to = Constant <value_ints = [{end}, 1]> ()
  {p}maps = Constant <value_ints = [2, 3]> ()
  {p}s = Constant <value_ints = [1, 1, {scale}, {scale}]> ()
  {p}size = Shape ({0})
  {p}shape = Mul ({p}size, {p}s)
  {p}a = Slice ({0}, {p}from, {p}to, {p}maps)
  {out} = Expand ({p}a, {p}shape)
"""


def _cheap(node: onnx.NodeProto, text: str, **values: int) -> list[onnx.NodeProto]:
    """Return nodes that give a node's last output its shape."""
    import onnx

    out = node.output[-1]
    body = text.format(*node.input, p=f"cheap_{out}_", out=out, **values)
    inputs = ", ".join(f"float {name}" for name in node.input)
    return list(onnx.parser.parse_graph(f"g ({inputs}) => (float {out}) {{{body}}}").node)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next(item.i for item in node.attribute if item.name == name)


def _alive(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the wanted values need, in order."""
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def pytorch_convolutions(name: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of the convolutions of `train`'s network alone, on the photograph."""
    return subjects.module_runner(partial(convolutions, subjects.network(name)), height, width, threads)


def convolutions(net: IGNN, lr: torch.Tensor) -> torch.Tensor:
    """Compute the convolutions of `train`'s network alone, on the shapes that they have in it."""
    import torch

    s, k = net.config.graph_scale, net.config.neighbors
    N, _, H, W = lr.shape
    x = net.head(lr - net.mean)
    features = net.body1(x)
    query, _ = net.embedding(lr), net.embedding(net.reduce(lr))
    label = query[..., : H // 2, : W // 2]
    # Channels last, as adapn_gather gives it.
    folded = features.new_zeros(N, s * H, s * W, features.shape[1]).permute(0, 3, 1, 2)
    f_lr = torch.zeros_like(features)
    for _ in range(k):
        for ecn in (net.gcn.weightnet_lr, net.gcn.weightnet_hr):
            ecn(label, H, W)
        f_lr += net.gcn.knn_downsample(folded)
    deep = x + net.body2(net.fuse_b(torch.cat([features, f_lr], dim=1)))
    return net.tail(net.fuse_up(torch.cat([net.upsample(deep), folded], dim=1))) + net.mean
