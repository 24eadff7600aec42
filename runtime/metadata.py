"""What a model file says about itself: the `ignn.*` metadata of the ONNX file, checked before anything believes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from .errors import ModelMetadataError, UsageError

FORMAT = "1"
"""Version of the metadata layout: what the exporter writes and this runtime reads."""


STAGES = "ignn.stages"
"""Domain of the functions that are the network in stages, see `export.stages`."""


class Key(StrEnum):
    """Names of the entries in the ONNX file's metadata."""

    FORMAT = "ignn.format"
    NAME = "ignn.name"
    VERSION = "ignn.version"
    SCALE = "ignn.scale"
    GRAPH_SCALE = "ignn.graph_scale"
    WINDOW = "ignn.window"
    NEIGHBORS = "ignn.k"
    VALUE_RANGE = "ignn.value_range"
    COLOR = "ignn.color"
    HALO = "ignn.halo"
    TILE_MULTIPLE = "ignn.tile_multiple"
    PRECISION = "ignn.precision"
    BYTES_PER_PIXEL = "ignn.bytes_per_pixel"
    MINIMUM_SIZE = "ignn.minimum_size"
    CHANNELS = "ignn.channels"
    FOLD_HALO = "ignn.fold_halo"
    OUTPUT_HALO = "ignn.output_halo"
    CROP_BYTES = "ignn.crop_bytes"
    FIELD_BYTES = "ignn.field_bytes"
    BAND_BYTES = "ignn.band_bytes"
    CONFIG = "ignn.config"
    WEIGHTS_SHA256 = "ignn.weights_sha256"


FOREIGN_HALO = 16
"""LR pixels of context around a tile of a model that does not say how far it sees."""

UNKNOWN_BYTES_PER_PIXEL = 32_768
"""Peak bytes per LR pixel assumed of a model that does not say (0, or nothing): 64 float32 maps, some fourfold."""

ValueRange = Literal["0..255", "0..1"]


BAND_VALUES, LEAST_BAND_ROWS = 16_384 * 64, 32
"""Values of one LR map in a band of rows, and the least rows that a band has."""


@dataclass(frozen=True)
class StageFacts:
    """What running a network in stages needs to know.

    Attributes:
        graph_scale, neighbors, channels: of the network.
        minimum_size: smallest height and width that the stages take.
        fold_halo: LR pixels of context around a tile in which neighbors are folded.
        output_halo: LR pixels of context around a band of what is at output size.
        crop_bytes, field_bytes, band_bytes: peak bytes per LR pixel of a crop, of its field (the part in which
            neighbors are folded), and of one band of the field's rows.
    """

    graph_scale: int
    neighbors: int
    channels: int
    minimum_size: int
    fold_halo: int
    output_halo: int
    crop_bytes: int
    field_bytes: int
    band_bytes: int

    def band_rows(self, width: int) -> int:
        """Return the rows of a band: they keep a band's maps small, and the rows around it few beside them."""
        return max(LEAST_BAND_ROWS, BAND_VALUES // (self.channels * width))

    @property
    def whole_pixels(self) -> int:
        """Largest crop, in LR pixels, that runs as one graph: it is faster there, and takes little memory."""
        return 64 * 65_536 // self.channels


@dataclass(frozen=True)
class ModelMetadata:
    """Facts about one model, as data.

    Attributes:
        name: a label for people; never tested in code.
        scale: output size over input size.
        value_range: the network's input and output values, `0..255` or `0..1`.
        halo: LR pixels of context that make a tile exact.
        tile_multiple: tile origins are multiples of this (twice the graph scale).
        window: side of the graph's search window, in key patches of `tile_multiple` LR pixels; 0 for a network
            without a graph.
        exact: whether `halo` is known to make tiles exact (not so for a foreign model).
        precision: `fp32` or `fp16`.
        bytes_per_pixel: peak bytes of memory per LR pixel of a crop, run as one graph.
        stages: what running it in stages needs; None: the file has none.
    """

    name: str
    scale: int
    value_range: ValueRange
    halo: int
    tile_multiple: int
    window: int
    exact: bool
    precision: str
    bytes_per_pixel: int
    stages: StageFacts | None = None

    @property
    def unit(self) -> float:
        """What values 0..255 are divided by for the network."""
        return 255.0 if self.value_range == "0..1" else 1.0


def read_metadata(
    properties: Mapping[str, str],
    *,
    source: str,
    scale: int | None = None,
    value_range: str | None = None,
) -> ModelMetadata:
    """Check a model's metadata and make a `ModelMetadata` of it.

    Args:
        properties: the file's metadata, strings to strings.
        source: the file, for messages.
        scale: scale of a foreign model (one without `Key.FORMAT`).
        value_range: value range of a foreign model.

    Raises:
        ModelMetadataError: something is missing, is not a number, or lies outside what can be true.
    """
    if value_range not in (None, "0..255", "0..1"):
        raise UsageError(f"Invalid value_range ({value_range!r}). Supported values are '0..255', '0..1'.")
    if scale is not None and not 1 <= scale <= 16:
        raise UsageError(f"Invalid scale ({scale}). Supported values are 1 to 16.")
    if Key.FORMAT not in properties:
        return _foreign(source, scale, value_range)
    if scale is not None or value_range is not None:
        raise UsageError(f"{source} says its own scale and value range; leave out --scale and --value-range.")
    if properties[Key.FORMAT] != FORMAT:
        raise ModelMetadataError(
            f"{source} has metadata of format {_shown(properties[Key.FORMAT])}; this version reads format "
            f"{FORMAT!r}. Install a version of ignn that reads it, or export the model again with `ignn export`."
        )

    entries = _Entries(properties, source)
    entries.choice(Key.COLOR, "RGB")
    entries.choice(Key.VALUE_RANGE, "0..255")
    graph_scale = entries.integer(Key.GRAPH_SCALE, 1, 16)
    multiple = entries.integer(Key.TILE_MULTIPLE, 1, 64)
    if multiple != 2 * graph_scale:
        raise ModelMetadataError(
            f"{source}: metadata {Key.TILE_MULTIPLE} is {multiple}; twice {Key.GRAPH_SCALE} is {2 * graph_scale}. "
            "Export the model again with `ignn export`."
        )
    return ModelMetadata(
        name=properties.get(Key.NAME, "unnamed")[:80],
        scale=entries.integer(Key.SCALE, 1, 16),
        value_range="0..255",
        halo=entries.integer(Key.HALO, 0, 4096),
        tile_multiple=multiple,
        window=entries.integer(Key.WINDOW, 0, 1024),
        exact=True,
        precision=entries.choice(Key.PRECISION, "fp32", "fp16"),
        bytes_per_pixel=entries.integer(Key.BYTES_PER_PIXEL, 0, 1 << 30) or UNKNOWN_BYTES_PER_PIXEL,
        stages=_stages(entries, graph_scale) if Key.FOLD_HALO in properties else None,
    )


class _Entries:
    """The entries of one file, each checked when it is asked for."""

    def __init__(self, properties: Mapping[str, str], source: str) -> None:
        self._properties, self._source = properties, source

    def integer(self, key: Key, low: int, high: int) -> int:
        text = self._properties.get(key)
        # isdigit() alone admits digits of other scripts, and int() takes arbitrarily long strings slowly.
        if text is None or not (text.isascii() and text.isdigit() and len(text) < 16 and low <= int(text) <= high):
            raise ModelMetadataError(
                f"{self._source}: metadata {key} is {_shown(text)}; a whole number from {low} to {high} is expected. "
                "Export the model again with `ignn export`."
            )
        return int(text)

    def choice(self, key: Key, *accepted: str) -> str:
        text = self._properties.get(key)
        if text not in accepted:
            raise ModelMetadataError(
                f"{self._source}: metadata {key} is {_shown(text)}. Supported values are {', '.join(accepted)}. "
                "Export the model again with `ignn export`."
            )
        return text


def _stages(entries: _Entries, graph_scale: int) -> StageFacts:
    return StageFacts(
        graph_scale=graph_scale,
        neighbors=entries.integer(Key.NEIGHBORS, 1, 1024),
        channels=entries.integer(Key.CHANNELS, 1, 65536),
        minimum_size=entries.integer(Key.MINIMUM_SIZE, 1, 4096),
        fold_halo=entries.integer(Key.FOLD_HALO, 0, 4096),
        output_halo=entries.integer(Key.OUTPUT_HALO, 0, 4096),
        crop_bytes=entries.integer(Key.CROP_BYTES, 0, 1 << 30),
        field_bytes=entries.integer(Key.FIELD_BYTES, 0, 1 << 30),
        band_bytes=entries.integer(Key.BAND_BYTES, 0, 1 << 30),
    )


def _foreign(source: str, scale: int | None, value_range: str | None) -> ModelMetadata:
    if scale is None or value_range is None:
        raise ModelMetadataError(
            f"{source} was not exported by `ignn export` (it has no ignn.* metadata), so its scale and value range are "
            "unknown. Give both: --scale 2 --value-range 0..1 (or 0..255), in Python scale=2, value_range='0..1'."
        )
    return ModelMetadata(
        name="foreign",
        scale=scale,
        value_range="0..1" if value_range == "0..1" else "0..255",
        halo=FOREIGN_HALO,
        tile_multiple=1,
        window=0,
        exact=False,
        precision="fp32",
        bytes_per_pixel=UNKNOWN_BYTES_PER_PIXEL,
    )


def _shown(text: str | None) -> str:
    return "missing" if text is None else repr(text[:40])
