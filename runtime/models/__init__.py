"""The models that ship with the package; `models.json` describes each file.

Schema of `models.json`::

    {"default": "<name>",
     "models": [{"name": str, "file": str, "sha256": 64 hex digits, "size_bytes": int,
                 "kind": "graph" | "errors" | "plain", "scale": int, "precision": "fp32" | "fp16",
                 "training_data": str, "license": str, "psnr_y_db": {"Set5": float, ...},
                 "seconds": float | null, "seconds_on": str}]}

`default` is the name of one entry. `python -m runtime.models` checks every file against its entry.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..clone import restore_command
from ..errors import ModelChecksumError, ModelNotFoundError

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class BundledModel:
    """One entry of `models.json`.

    Attributes:
        name: what `SuperResolver(name)` and `--model name` take.
        file: file name beside `models.json`.
        sha256: checksum of the file, lower-case hex.
        size_bytes: size of the file.
        kind: `graph` (IGNN), `errors` (a graph that lends the backbone's errors) or `plain` (the backbone alone: EDSR).
        scale: output size over input size.
        precision: `fp32` or `fp16` (of the stored weights).
        training_data: what it was trained on, with licences.
        license: licence of the weights.
        psnr_y_db: PSNR on the Y channel in dB, by evaluation set.
        seconds: for a picture of 256 x 256 pixels; None: not measured.
        seconds_on: what ran it, in words.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    kind: str
    scale: int
    precision: str
    training_data: str
    license: str
    psnr_y_db: dict[str, float]
    seconds: float | None
    seconds_on: str

    def checked_path(self) -> Path:
        """Return the path of the file, after checking it.

        Raises:
            ModelChecksumError: the file is absent, or is not the one that `models.json` describes.
        """
        path = FOLDER / self.file
        again = f"Get it back with: {restore_command()}"
        try:
            with path.open("rb") as file:
                found, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        except OSError as error:
            raise ModelChecksumError(f"Bundled model {self.name!r} cannot be read: {error}. {again}") from error
        if size != self.size_bytes or found != self.sha256:
            raise ModelChecksumError(
                f"Bundled model {path.name} is not the published one: SHA-256 {found[:16]}... of {size} bytes, "
                f"expected {self.sha256[:16]}... of {self.size_bytes}. {again}"
            )
        return path


def bundled_models() -> list[BundledModel]:
    """Return every model of `models.json`, the default one first; an empty list if none is bundled.

    Raises:
        ModelChecksumError: `models.json` is damaged.
    """
    path = FOLDER / "models.json"
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        models = [_parse(entry) for entry in content["models"]]
        default = content["default"]
        if default not in [model.name for model in models]:
            raise ValueError(f"default {default!r} is not among the models")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelChecksumError(
            f"The installed {path.name} is damaged ({error}). Get it back with: {restore_command()}"
        ) from error
    return sorted(models, key=lambda model: model.name != default)


def find_model(name: str | None) -> BundledModel:
    """Return the bundled model of that name; for `None` the default one.

    Raises:
        ModelNotFoundError: there is none.
    """
    models = bundled_models()
    if name is None and models:
        return models[0]
    for model in models:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in models) or "none"
    wanted = "a default model" if name is None else repr(name)
    raise ModelNotFoundError(
        f"No {wanted} is bundled. Bundled models: {names}. Give one of these (`ignn models` describes them), or a path "
        "to an .onnx file made by `ignn export`."
    )


def _parse(entry: dict[str, Any]) -> BundledModel:
    if not isinstance(entry, dict):
        raise TypeError("an entry is not an object")
    expected = {field.name for field in fields(BundledModel)}
    if set(entry) != expected:
        raise ValueError(f"an entry has fields {sorted(entry)}, expected {sorted(expected)}")
    if Path(entry["file"]).name != entry["file"]:
        raise ValueError(f"file {entry['file']!r} is not a plain file name")
    if len(entry["sha256"]) != 64:
        raise ValueError(f"sha256 of {entry['name']!r} does not have 64 digits")
    return BundledModel(**entry)


def check() -> int:
    """Check every bundled file against `models.json`; return how many there are.

    Raises:
        ModelChecksumError: a file is absent or is not the one that `models.json` describes.
    """
    models = bundled_models()
    for model in models:
        model.checked_path()
    return len(models)
