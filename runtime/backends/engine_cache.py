"""Keep engines on disk, and give each only to what it was built for."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ..atomic import atomic_path
from ..errors import IgnnError

logger = logging.getLogger("ignn")

MAGIC = b"IGNN engine 1\n"

SMALLEST_SIDE = 256
"""Engines are built for sides of this times a power of two, so that few of them serve all sizes."""


def side_to_build(side: int) -> int:
    """Return the side, in LR pixels, that an engine is built for to serve this one."""
    return SMALLEST_SIDE << max(0, (side - 1).bit_length() - (SMALLEST_SIDE - 1).bit_length())


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        model_sha256: of the ONNX file.
        plugin_sha256: of the plugin library; empty without one.
        tensorrt: flavor and version, `tensorrt-rtx 1.7.1.116`.
        gpu: the GPU's name.
        compute_capability: `8.6`.
        profile: the inputs that it takes.
    """

    model_sha256: str
    plugin_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    profile: str

    @property
    def file_name(self) -> str:
        """The name of the engine's file: readable parts first, then a digest of all."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        parts = (self.model_sha256[:12], self.tensorrt, self.gpu, self.compute_capability, digest[:16])
        return "-".join("".join(c if c.isalnum() or c == "." else "_" for c in part) for part in parts) + ".engine"


def cache_folder() -> Path:
    """Return the folder of the engines: `$IGNN_CACHE`, else one in the user's cache folder."""
    if os.environ.get("IGNN_CACHE"):
        return Path(os.environ["IGNN_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "ignn" / "engines"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ignn" / "engines"


class EngineCache:
    """A folder of engines. An engine holds code that runs: the folder is made for its owner only."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()

    def load(self, key: EngineKey) -> bytes | None:
        """Return the engine of that key; None if it is absent, damaged or of another key. The caller then builds it."""
        path = self.folder / key.file_name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("the engine %s cannot be read (%s): building it again", path, error.strerror)
            return None
        try:
            if not content.startswith(MAGIC):
                raise ValueError("not an engine of this cache")
            header, _, engine = content[len(MAGIC) :].partition(b"\n")
            facts = json.loads(header)
            if facts["key"] != asdict(key):
                raise ValueError("built for something else")
            if facts["sha256"] != hashlib.sha256(engine).hexdigest():
                raise ValueError("damaged")
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # the last: of brackets without end
            logger.warning("the engine %s is not usable (%s): building it again", path, error)
            return None
        return engine

    def store(self, key: EngineKey, engine: bytes) -> None:
        """Write an engine to disk. If that fails the log says so: the caller has the engine in memory."""
        header = {"key": asdict(key), "sha256": hashlib.sha256(engine).hexdigest()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_path(self.folder / key.file_name) as temporary:
                temporary.write_bytes(MAGIC + json.dumps(header).encode() + b"\n" + engine)
        except (OSError, IgnnError) as error:
            logger.warning("the engine cannot be kept (%s): it will be built again next time; set IGNN_CACHE", error)
