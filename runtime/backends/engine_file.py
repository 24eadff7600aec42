"""An engine file and the small JSON beside it, by which the engine runs without its ONNX file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..atomic import atomic_path
from ..errors import EngineError
from .tensorrt_library import Flavor, check_flavor

FORMAT = 1


@dataclass(frozen=True)
class EngineFacts:
    """What `ignn build` knows of an engine.

    Attributes:
        engine_sha256: of the engine file, in hex.
        model_sha256: of the ONNX file that it was built from.
        model: that file's name.
        flavor: which TensorRT built it.
        tensorrt: TensorRT's version.
        compute_capability: `8.6`, of the GPU that it is for; None where the build did not say.
        properties: the ONNX file's metadata.
        operator_calls: calls of our operators in the ONNX file, by name.
    """

    engine_sha256: str
    model_sha256: str
    model: str
    flavor: Flavor
    tensorrt: str
    compute_capability: str | None
    properties: dict[str, str]
    operator_calls: dict[str, int]

    @property
    def built_by(self) -> str:
        """Where it came from, for messages."""
        gpu = f" for compute capability {self.compute_capability}" if self.compute_capability else ""
        return f"built from {self.model} by {self.flavor} {self.tensorrt}{gpu}"


def facts_path(engine: Path) -> Path:
    """Return the path of the JSON beside an engine."""
    return engine.with_name(f"{engine.name}.json")


def write_engine_facts(engine: Path, facts: EngineFacts) -> None:
    """Write the JSON beside an engine."""
    with atomic_path(facts_path(engine)) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT} | asdict(facts), indent=2) + "\n")


def read_engine_facts(engine: Path, content: bytes) -> EngineFacts | None:
    """Return what the JSON beside an engine says; None where there is none, as beside one of `trtexec`.

    Raises:
        EngineError: the JSON is damaged, or of another engine.
    """
    path = facts_path(engine)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        facts = EngineFacts(**values)
        check_flavor(facts.flavor)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineError(
            f"{path} is damaged ({error}). Build the engine again with `ignn build`, or remove the file and name the "
            "engine's ONNX file: --model."
        ) from error
    if facts.engine_sha256 != hashlib.sha256(content).hexdigest():
        raise EngineError(
            f"{path} describes another engine than {engine}: the checksum differs. Build it again with `ignn build`, "
            "or remove the JSON and name the engine's ONNX file: --model."
        )
    return facts
