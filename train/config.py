"""The configuration of a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from runtime.errors import UsageError

PATCH = 3
"""Side of a graph patch in pixels of its own map (paper section 3.1: l = 3)."""

STRIDE = 2
"""Distance between neighbouring patches in pixels of their own map."""

EMBEDDING_CHANNELS = 64
"""Channels of the frozen VGG19 conv1_2 embedding that patches are matched in."""

GRAPHS = ("graphagg", "errors", "same-scale", "non-local", "none")
"""Ways to use the image's own patches: the paper's; the backbone's errors one scale below (`train.error_graph`); the
last three are the paper's comparisons (table 2)."""


@dataclass(frozen=True)
class IGNNConfig:
    """Configuration of an IGNN network.

    Raises:
        UsageError: a value is outside what the field accepts.
    """

    scale: int = 2
    """Upscaling factor: 2, 3 or 4."""
    channels: int = 256
    """Width C of the backbone."""
    blocks: int = 32
    """Residual blocks in all."""
    graph_after: int = 16
    """Residual blocks before the graph; 0 puts it directly after the head."""
    residual_scale: float = 0.1
    """Factor on each residual branch of the backbone."""
    neighbors: int = 5
    """Neighbors k of every query patch."""
    window: int = 30
    """Search window d, in key patches per side; larger than any image is the whole image."""
    graph: str = "graphagg"
    """"graphagg", "errors" (neighbors lend the backbone's errors one scale below), "same-scale" (GraphAgg on neighbors
    within the LR map), "non-local" (a block), "none" (EDSR)."""
    adapn: bool = True
    """Give neighbor patches the query patch's statistics; without, they are folded as they stand (table 6)."""
    ecn: bool = True
    """Weigh neighbors by their edge labels; without, all alike (table 6)."""

    def __post_init__(self) -> None:
        """Refuse values that no network can have."""
        if self.scale not in (2, 3, 4):
            raise UsageError(f"Invalid scale ({self.scale}). Supported values are 2, 3, 4.")
        for name in ("channels", "blocks", "neighbors", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"Invalid {name} ({getattr(self, name)}). It must be at least 1.")
        if self.graph not in GRAPHS:
            raise UsageError(f"Invalid graph ({self.graph!r}). Supported values are {', '.join(GRAPHS)}.")
        if self.graph == "errors" and self.scale == 4:
            raise UsageError("Invalid scale (4). The graph of errors has one scale; supported values are 2, 3.")
        if self.graph not in ("graphagg", "same-scale"):
            for name in ("adapn", "ecn"):
                if not getattr(self, name):
                    raise UsageError(
                        f"Invalid {name} (False) with graph = {self.graph!r}. Only the graphs graphagg and same-scale "
                        f"have it; leave {name} out."
                    )
        if not 0 <= self.graph_after <= self.blocks:
            raise UsageError(
                f"Invalid graph_after ({self.graph_after}). It must be between 0 and blocks ({self.blocks})."
            )
        if self.window**2 < self.neighbors:
            raise UsageError(
                f"Invalid window ({self.window}). A window of {self.window} x {self.window} patches "
                f"holds fewer than neighbors ({self.neighbors})."
            )

    @property
    def graph_scale(self) -> int:
        """Scale s between the two maps of the graph: 2 for x2 and x4, 3 for x3."""
        return 3 if self.scale == 3 else 2

    @property
    def minimum_size(self) -> int:
        """Smallest LR height or width, in pixels, that has k neighbors; smaller images are padded up to it inside."""
        patches_per_side = next(n for n in range(1, self.neighbors + 1) if n * n >= self.neighbors)
        return 2 * self.graph_scale * patches_per_side

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> IGNNConfig:
        """Return the preset `name` with some fields replaced.

        Args:
            name: "ignn" (the paper's network), "ignn-s" (16 blocks of 64 channels, for CPUs) or "ignn-e" (the same
                backbone with the graph of errors).
            overrides: fields to replace, e.g. `scale=3`.

        Raises:
            UsageError: the preset or a field is unknown, or a value is not accepted.
        """
        if name not in PRESETS:
            raise UsageError(f"Unknown preset ({name!r}). Supported values are {', '.join(PRESETS)}.")
        return cls.from_dict({**asdict(PRESETS[name]), **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> IGNNConfig:
        """Return the configuration with these fields.

        Raises:
            UsageError: a field does not exist, or a value is not accepted.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UsageError(
                f"Unknown configuration field ({', '.join(unknown)}). Fields are {', '.join(sorted(known))}."
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `from_dict` takes back."""
        return asdict(self)


PRESETS = {
    "ignn": IGNNConfig(),
    "ignn-s": IGNNConfig(channels=64, blocks=16, graph_after=8, residual_scale=1.0),
    "ignn-e": IGNNConfig(channels=64, blocks=16, graph_after=8, residual_scale=1.0, graph="errors", window=60),
}
"""The networks that have a name."""
