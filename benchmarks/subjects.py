"""What is measured: the networks, as files and as modules, and the photograph.

PyTorch and onnx are imported by the functions that need them: a process that measures the runtime must not hold them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import REPOSITORY
from runtime.metadata import Key

if TYPE_CHECKING:
    import torch

    from train import IGNN

CACHE = REPOSITORY / "out" / "benchmarks" / "models"

_TINY = {"channels": 16, "blocks": 2, "graph_after": 1}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ignn": ("ignn", {}),
    "ignn-s": ("ignn-s", {}),
    "edsr-s": ("ignn-s", {"graph": "none"}),
    "tiny": ("ignn-s", _TINY),
    "edsr-tiny": ("ignn-s", {**_TINY, "graph": "none"}),
}
"""By name: a preset and what differs from it. `edsr-s` is a plain EDSR of `ignn-s`'s width and depth; the tiny ones are
for --quick. All are x2."""


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Return the sample photograph, mirrored at its borders as often as that size takes: (H, W, 3) uint8."""
    from PIL import Image

    with Image.open(REPOSITORY / "assets" / "sample.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    grow = [(0, max(0, size - has)) for size, has in zip((height, width), pixels.shape, strict=False)]
    return np.ascontiguousarray(np.pad(pixels, [*grow, (0, 0)], mode="symmetric")[:height, :width])


def lr_input(height: int, width: int, batch: int = 1) -> NDArray[np.float32]:
    """Return the photograph as a network's input: (N, 3, H, W) float32 0..255."""
    planes = photograph(height, width).transpose(2, 0, 1).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(planes, (batch, *planes.shape)))


def network(name: str) -> IGNN:
    """Return the network with random weights, the same each time, for inference."""
    import torch

    from train import IGNN, IGNNConfig

    preset, overrides = NETWORKS[name]
    torch.manual_seed(0)
    return IGNN(IGNNConfig.preset(preset, scale=2, **overrides)).eval()


def onnx_file(name: str, precision: str = "fp32", *, random_weights: bool = False) -> Path:
    """Return the network's ONNX file: the bundled one if there is one, else exported with random weights.

    Args:
        name: of `NETWORKS`.
        precision: "fp32" or "fp16".
        random_weights: take `network(name)`'s weights in any case.
    """
    from train import IGNNConfig

    preset, overrides = NETWORKS[name]
    config = IGNNConfig.preset(preset, scale=2, **overrides)
    if precision == "fp32" and not random_weights:
        bundled = _bundled(config.to_dict())
        if bundled is not None:
            return bundled
    from export.to_onnx import export_onnx

    def export(path: Path) -> None:
        export_onnx(network(name), path, precision="fp16" if precision == "fp16" else "fp32")

    return _cached(f"{name}-{precision}", export)


def backbone(name: str) -> IGNN:
    """Return a network without a graph as its layers alone: nothing is padded, nothing is cut."""
    net = network(name)
    net.forward = net.forward_backbone  # type: ignore[method-assign, assignment]
    return net


def plain_onnx_file(name: str, height: int, width: int) -> Path:
    """Return the file of a network without a graph, for one image size: nothing in it but what every runtime knows."""
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names packages that nothing here needs

    def export(path: Path) -> None:
        torch.onnx.export(
            backbone(name),
            (torch.zeros(1, 3, height, width),),
            str(path),
            input_names=["lr"],
            output_names=["sr"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )

    return _cached(f"{name}-{height}x{width}", export)


def _bundled(config: dict[str, Any]) -> Path | None:
    import onnx

    from runtime.models import FOLDER, bundled_models

    for model in bundled_models():
        properties = {item.key: item.value for item in onnx.load(FOLDER / model.file).metadata_props}
        if json.loads(properties[Key.CONFIG]) == config:
            return FOLDER / model.file
    return None


def _cached(name: str, export: Callable[[Path], object]) -> Path:
    """Return the file of that name, made by `export` from today's source."""
    sources = sorted([*(REPOSITORY / "train").glob("*.py"), *(REPOSITORY / "export").glob("*.py"), Path(__file__)])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    path = CACHE / f"{name}-{digest}.onnx"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"part-{path.name}")
        export(temporary)
        temporary.replace(path)
    return path


def sha256(path: Path) -> str:
    """Return a file's SHA-256, for the configuration of its row."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def onnx_runtime_network(model: str, threads: int) -> Callable[[NDArray], NDArray]:
    """Return the runtime's own backend on an exported file."""
    from runtime.backends.ort import OrtBackend

    return OrtBackend(Path(model), source=model, providers=["cpu"], threads=threads).run


def onnx_runtime(model: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of the runtime's own backend on an exported file and the photograph."""
    run, lr = onnx_runtime_network(model, threads), lr_input(height, width)
    return lambda: run(lr)


def super_resolver(model: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of `SuperResolver` on the photograph as one tile."""
    from runtime import SuperResolver

    upscale = SuperResolver(model, providers=["cpu"], tile=None, threads=threads)
    image = photograph(height, width)
    return lambda: upscale(image)


def module_network(module: Callable[[torch.Tensor], torch.Tensor], threads: int) -> Callable[[NDArray], NDArray]:
    """Return what runs a PyTorch module on arrays."""
    import torch

    torch.set_num_threads(threads)

    def run(lr: NDArray) -> NDArray:
        with torch.inference_mode():
            return module(torch.from_numpy(lr)).numpy()

    return run


def module_runner(
    module: Callable[[torch.Tensor], torch.Tensor], height: int, width: int, threads: int
) -> Callable[[], NDArray]:
    """Return what runs a PyTorch module on the photograph."""
    run, lr = module_network(module, threads), lr_input(height, width)
    return lambda: run(lr)


def pytorch_network(name: str, threads: int) -> Callable[[NDArray], NDArray]:
    """Return `train`'s network."""
    return module_network(network(name), threads)


def pytorch(name: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of `train`'s network on the photograph."""
    return module_runner(network(name), height, width, threads)
