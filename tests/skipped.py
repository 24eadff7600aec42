"""What was skipped in a run of the tests, and what would bring it."""

from __future__ import annotations

import re
from collections import Counter

REMEDIES = {
    r"no CUDA device": "a machine with an NVIDIA GPU",
    r"a GPU is here|there is a CUDA device|this ONNX Runtime has": "a machine without a GPU",
    r"shared data is absent": "the shared data in ../shared",
    r"nvcc|CUDA headers": "the CUDA toolkit",
    r"TensorRT's public headers": "git clone --depth 1 -b v11.1 https://github.com/NVIDIA/TensorRT",
    r"TensorRT-RTX": "pip install -e '.[rtx]'",
    r"tensorrt_lean": "pip install -e '.[test]'",
    r"no clone of NVIDIA/TensorRT": "git clone https://github.com/NVIDIA/TensorRT ../TensorRT",
    r"Gradio|Playwright": "pip install -e '.[test-ui]', in an environment of its own",
    r"extra (test-)?(serve|client|batch)|tritonserver": "pip install -e '.[test-serve]', in an environment of its own",
    r"network namespace": "the command in CONTRIBUTING.md",
    r"Chromium": "playwright install chromium",
    r"onnxruntime-node": "npm install --ignore-scripts --no-save --prefix docs/demo onnxruntime-node",
    r"onnxruntime-web": "npm ci --ignore-scripts --prefix docs/demo",
    r"needs Node": "Node",
    r"could not import|needs PyAV|pyvips|\[stream\]|matplotlib|pypng|olygraphy": "pip install -e '.[test]'",
    r"Linux|POSIX|/proc|resource module|terminal|symbolic links|shell script": "Linux",
    r"Python .* is not here": "that Python, on the path or of pyenv",
    r"PyTorch has no": "a newer PyTorch",
    r"is not installed": "the system's packages cmake and g++",
}
"""What brings a skipped test, by words of its reason."""


def describe_skipped(reasons: list[str]) -> str:
    """Return one line: how many tests were skipped, grouped by what would bring them."""
    groups: Counter[str] = Counter()
    for reason in reasons:
        remedy = next((what for words, what in REMEDIES.items() if re.search(words, reason)), None)
        groups[remedy or f"unknown ({reason})"] += 1
    listed = "; ".join(f"{count} by {remedy}" for remedy, count in groups.most_common())
    return f"{len(reasons)} skipped, which would run: {listed}"
