"""What one could take instead: the network in OpenVINO, and a plain EDSR of its width and depth in every runtime.

The same photograph, in turns, in float32 unless the name says otherwise: `OpenVINO` by default, and ncnn, may compute
in less than float32 where the CPU can, which shows in the difference of the pictures.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import subjects
from benchmarks.results import target
from runtime.commands.measure import Factory, Worker, compare

REFERENCE = "EDSR, ONNX Runtime"
OVER_EDSR = 2.45
"""The most that the network should take of a plain EDSR's time: 0.8 of what was measured before it ran in bands."""
OPENVINO = {"time": 1.0, "memory": 1.2}
"""The most that OpenVINO should take of what ONNX Runtime takes, for the network in float32."""
FLOAT32_DIFFERENCE = 0.01
"""Of 255: what computes in float32 differs by less."""


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    plain, ours, size = ("edsr-tiny", "tiny", 48) if quick else ("edsr-s", "ignn-s", 256)
    return [
        {
            "plain": plain,
            "ours": ours,
            "height": size,
            "width": size,
            "threads": threads,
            "budget_s": 1 if quick else 90,
        }
        | {"plain_sha256": subjects.sha256(subjects.plain_onnx_file(plain, size, size))}
        | {"model_sha256": subjects.sha256(subjects.onnx_file(ours))}
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure one configuration."""
    size = {key: config[key] for key in ("height", "width", "threads")}
    edsr = {**size, "model": str(subjects.plain_onnx_file(config["plain"], config["height"], config["width"]))}
    network = {**size, "model": str(subjects.onnx_file(config["ours"]))}
    in_ort, in_openvino = _of_network(config)
    alternatives: dict[str, tuple[Factory, dict[str, Any]]] = {
        in_ort: (subjects.onnx_runtime, network),
        in_openvino: (network_in_openvino, network),
        REFERENCE: (plain_onnx_runtime, edsr),
        "EDSR, PyTorch": (plain_pytorch, {**size, "name": config["plain"]}),
        "EDSR, OpenCV": (opencv, edsr),
        "EDSR, OpenVINO float32": (openvino, {**edsr, "precision": "f32"}),
        "EDSR, OpenVINO": (openvino, {**edsr, "precision": None}),
    }

    def differences(workers: Mapping[str, Worker]) -> dict[str, float]:
        pairs = {name: REFERENCE for name in workers if name.startswith("EDSR") and name != REFERENCE}
        pairs |= {name: in_ort for name in workers if name == in_openvino}
        found = {}
        for name, reference in pairs.items():
            expected = workers[reference].output()
            found[f"difference of {name}"] = float(
                np.abs(workers[name].output().reshape(expected.shape) - expected).max()
            )
        return found

    with tempfile.TemporaryDirectory() as folder:
        stem = ncnn_files(config["plain"], config["height"], config["width"], Path(folder))
        alternatives["EDSR, ncnn"] = (ncnn, {**size, "stem": stem})
        return compare(alternatives, against=REFERENCE, outputs=differences, budget_s=config["budget_s"])


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the network's time over EDSR's, and what OpenVINO takes of ONNX Runtime's time and memory."""
    found = []
    for row in rows:
        config, ratios = row["config"], row["measurements"]["ratios"]
        in_ort, in_openvino = _of_network(config)
        if in_ort in ratios:
            text = f"{config['ours']}, {config['height']} x {config['width']}: time over plain EDSR's"
            found.append(target(text, ratios[in_ort]["wall"], OVER_EDSR))
        if in_openvino in ratios:
            for what, key in (("time", "wall"), ("memory", "peak_memory")):
                text = f"{in_openvino}, {config['height']} x {config['width']}: {what} over ONNX Runtime's"
                found.append(target(text, ratios[in_openvino][key] / ratios[in_ort][key], OPENVINO[what]))
    return found


def _of_network(config: dict[str, Any]) -> tuple[str, str]:
    """Return the labels of the network itself."""
    return f"{config['ours']}, ONNX Runtime", f"{config['ours']}, OpenVINO float32"


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        config, found = row["config"], row["measurements"]
        size = f"{config['height']} x {config['width']}"
        for name, numbers in found["alternatives"].items():
            ratio = found["ratios"].get(name, {"wall": 1.0, "cpu": 1.0})
            lines.append(
                {
                    "network, runtime": name,
                    "LR": size,
                    "time, s": numbers["wall_s"]["p50"],
                    "over EDSR's in ONNX Runtime": ratio["wall"],
                    "by CPU time": ratio["cpu"],
                    "peak memory, MB": numbers["peak_bytes"] / 1e6,
                    "difference": found["derived"].get(f"difference of {name}", ""),
                }
            )
        lines += [
            {"network, runtime": name, "LR": size, "time, s": f"not run: {why}"}
            for name, why in found.get("not_run", {}).items()
        ]
    return lines


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Return what switching to the fastest runtime in float32 would bring."""
    found = []
    for row in rows:
        derived, ratios = row["measurements"]["derived"], row["measurements"]["ratios"]
        exact = [
            name
            for name in ratios
            if name.startswith("EDSR") and derived.get(f"difference of {name}", 1.0) < FLOAT32_DIFFERENCE
        ]
        if exact:
            fastest = min(exact, key=lambda name: ratios[name]["wall"])
            found.append(
                f"The fastest here that computes in float32 is {fastest}: {ratios[fastest]['wall']:.2f} of the time, "
                f"{ratios[fastest]['peak_memory']:.1f} of the memory of {REFERENCE}. That is what another library's "
                "convolutions could bring at most; nothing was switched."
            )
    return found


def plain_onnx_runtime(model: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of plain ONNX Runtime with its default options."""
    from runtime.backends.onnx_runtime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    lr = subjects.lr_input(height, width)
    return lambda: session.run(None, {"lr": lr})[0]


def plain_pytorch(name: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of the plain network in PyTorch."""
    return subjects.module_runner(subjects.backbone(name), height, width, threads)


def network_in_openvino(model: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of the runtime's own OpenVINO backend on an exported file and the photograph."""
    from runtime.backends.ov import OpenVinoBackend

    backend, lr = OpenVinoBackend(Path(model), source=model, threads=threads), subjects.lr_input(height, width)
    return lambda: backend.run(lr)


def opencv(model: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of OpenCV's own inference engine."""
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(model)
    lr = subjects.lr_input(height, width)

    def run() -> NDArray:
        net.setInput(lr)
        return net.forward()

    return run


def openvino(model: str, height: int, width: int, threads: int, precision: str | None) -> Callable[[], NDArray]:
    """Return a call of OpenVINO on the CPU; `precision` None leaves the choice to OpenVINO."""
    from runtime.backends.ov import import_openvino

    options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        options["INFERENCE_PRECISION_HINT"] = precision
    compiled = import_openvino().Core().compile_model(model, "CPU", options)
    lr = subjects.lr_input(height, width)
    return lambda: compiled(lr)[0]


def ncnn(stem: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of ncnn on the files that `ncnn_files` wrote, and the photograph."""
    run, lr = ncnn_network(stem, threads), subjects.lr_input(height, width)[0]
    return lambda: run(lr)


def ncnn_network(stem: str, threads: int) -> Callable[[NDArray], NDArray]:
    """Return what runs the files that `ncnn_files` wrote on an array (3, H, W)."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.load_param(f"{stem}.param")
    net.load_model(f"{stem}.bin")

    def run(lr: NDArray) -> NDArray:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(lr).clone())  # a Mat made of an array does not keep the array alive
            return np.array(extractor.extract("out0")[1])

    return run


def ncnn_files(name: str, height: int, width: int, folder: Path) -> str:
    """Write a network as ncnn's two files, float32, by pnnx; return their path without the suffix.

    Nothing is written where pnnx is not installed.
    """
    stem = folder / name
    if importlib.util.find_spec("pnnx") is not None:
        import pnnx
        import torch

        traced = torch.jit.trace(subjects.backbone(name), torch.zeros(1, 3, height, width))
        traced.save(f"{stem}.pt")
        command = [pnnx.EXEC_PATH, f"{stem}.pt", f"inputshape=[1,3,{height},{width}]f32", "fp16=0"]
        command += [f"ncnnparam={stem}.param", f"ncnnbin={stem}.bin"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return str(stem)
