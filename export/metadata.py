"""What the runtime must know about a model, as the ONNX file's `metadata_props`."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

from runtime.metadata import FORMAT, Key
from train import IGNN, IGNNConfig
from train.config import PRESETS


def stage_halos(config: IGNNConfig) -> tuple[int, int]:
    """Return the LR pixels of context in which neighbors are folded around a tile, and of bands at output size."""
    output = 1 + _output_reach(config)  # the upsampler's convolution and what follows it
    return _DOWNSAMPLE_REACH + _deep_reach(config) + _output_reach(config), output


_DOWNSAMPLE_REACH = 1 + 1 + 1  # 5 x 5 at HR size, two 3 x 3


def _deep_reach(config: IGNNConfig) -> int:
    return 2 + 2 * (config.blocks - config.graph_after) + 1 + 1  # fuse_b, blocks, last convolution, upsampler


def _output_reach(config: IGNNConfig) -> int:
    # 3 x 3 convolutions at LR size reach 1 pixel; at HR size 1/s, and 1/(2s) behind the second upsampler of x4.
    return ceil((2 + _tail_reach(config)) / config.graph_scale)  # fuse_up, tail


def _tail_reach(config: IGNNConfig) -> float:
    return 1.5 if config.scale == 4 else 1


def halo(config: IGNNConfig) -> int:
    """Return the LR pixels of context around a tile that make its result the whole image's.

    An output pixel depends on the graph's features within the field of the layers after it; these on the patches over
    them and on the whole search window of those patches; and what lies there on the field of the layers before the
    graph. Rounded up to a multiple of 2s, on which crops must begin as tiles do. Exact as long as the search window is
    as large in the crop as in the whole image. Without a graph only the layers count.
    """
    s = config.graph_scale
    # Of the backbone: head, blocks, last convolution, upsampler, tail.
    plain = 1 + 2 * config.blocks + 1 + 1 + ceil(_tail_reach(config) / s)
    # From a pixel to the first key of a query over it: 2 pixels to the corner of the query's patch, up to s - 1 queries
    # of 2 pixels until i // s, half a window of key patches 2s pixels apart. The last key is nearer.
    window = 2 + 2 * (s - 1) + 2 * s * (config.window // 2)
    features = 1 + 2 * config.graph_after
    embedding = 2 * s + 2 * s  # two 3 x 3 on the reduced image, whose pixels reach 2s pixels around their centre
    exact = stage_halos(config)[0] + window + max(features, embedding)
    if config.graph == "none":
        exact = plain
    elif config.graph == "errors":
        # An output pixel depends on the folded errors over it and, by the doubt, on those 3 pixels around; an error on
        # the backbone at the scale below, and that on the reduction, which reaches 2s pixels. Back-projection reads 2
        # pixels around.
        exact = 2 + 3 + window + s * plain + 2 * s
    return ceil(exact / (2 * s)) * 2 * s


def metadata(net: IGNN, precision: str, bytes_per_pixel: int) -> dict[str, str]:
    """Return the model's `metadata_props`; every value is a string."""
    config = net.config
    has_graph = config.graph != "none"
    return {
        Key.FORMAT.value: FORMAT,
        Key.NAME.value: _name(config),
        Key.VERSION.value: _version(),
        Key.SCALE.value: str(config.scale),
        Key.GRAPH_SCALE.value: str(config.graph_scale),
        Key.WINDOW.value: str(config.window if has_graph else 0),
        Key.NEIGHBORS.value: str(config.neighbors if has_graph else 0),
        Key.VALUE_RANGE.value: "0..255",
        Key.COLOR.value: "RGB",
        Key.HALO.value: str(halo(config)),
        Key.TILE_MULTIPLE.value: str(2 * config.graph_scale),
        Key.PRECISION.value: precision,
        Key.BYTES_PER_PIXEL.value: str(bytes_per_pixel),
        Key.CONFIG.value: json.dumps(config.to_dict()),
        Key.WEIGHTS_SHA256.value: weights_sha256(net),
    }


def stage_metadata(config: IGNNConfig, crop_bytes: int, field_bytes: int, band_bytes: int) -> dict[str, str]:
    """Return what a file with stages (`export.stages`) says of them."""
    fold, output = stage_halos(config)
    return {
        Key.MINIMUM_SIZE.value: str(config.minimum_size),
        Key.CHANNELS.value: str(config.channels),
        Key.FOLD_HALO.value: str(fold),
        Key.OUTPUT_HALO.value: str(output),
        Key.CROP_BYTES.value: str(crop_bytes),
        Key.FIELD_BYTES.value: str(field_bytes),
        Key.BAND_BYTES.value: str(band_bytes),
    }


def weights_sha256(net: IGNN) -> str:
    """Return the SHA-256 of the network's float32 parameters in order of their names, however a file stores them."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _name(config: IGNNConfig) -> str:
    """Return the name of the preset that this is, if any, and the scale: a label for people. No graph: EDSR's name."""
    names = {known: name for name, known in PRESETS.items()}
    plain = {
        replace(known, graph="none"): name.replace("ignn", "edsr")
        for known, name in names.items()
        if known.graph == "graphagg"
    }
    return f"{(names | plain).get(replace(config, scale=2), 'custom')} x{config.scale}"


def _version() -> str:
    try:
        return version("ignn")
    except PackageNotFoundError:  # a clone that is not installed
        project = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
        found = re.search(r'^version = "(.+)"', project, re.MULTILINE)
        return found.group(1) if found else "unknown"
