"""Measure all methods on all test sets: bicubic, the bundled models and peers (`ignn scoreboard`).

Every image's score is appended to `scores.jsonl` of the run folder at once: the same command goes on where it was
killed, and measures again what a changed model file makes stale. The means go to `train/scores/scoreboard.json`, from
which `python -m train.scoreboard_table` writes the tables of the README and the cards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from runtime.atomic import make_folder, write_text
from runtime.cli import run_command
from runtime.errors import UsageError
from runtime.models import FOLDER as MODELS
from runtime.models import bundled_models
from train.data import list_images
from train.evaluate import Upscale, load_upscaler, score_image, self_ensemble
from train.resize import upsample_uint8

SCORES = Path(__file__).resolve().parent / "scores" / "scoreboard.json"

Key = tuple[str, str, int, str]
"""Method, SHA-256 of its model file (empty for bicubic), scale, data set."""


@dataclass(frozen=True)
class Method:
    """What is measured, at one scale."""

    name: str
    scale: int
    file: Path | None = None
    """Model file; None: bicubic."""
    value_range: str | None = None
    """Of another project's ONNX file: "0..255" or "0..1"."""
    ensemble: bool = False
    """Mean of eight flips and rotations."""

    @property
    def sha256(self) -> str:
        """Checksum of the model file; empty for bicubic."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest() if self.file else ""

    def upscaler(self) -> Upscale:
        """Open the model."""
        if self.file is None:
            return lambda lr: upsample_uint8(lr, self.scale).astype(np.float32)
        foreign = {"scale": self.scale, "value_range": self.value_range} if self.value_range else {}
        upscale, _ = load_upscaler(self.file, **foreign)  # type: ignore[arg-type]
        return self_ensemble(upscale) if self.ensemble else upscale


def bundled_methods(scale: int) -> list[Method]:
    """Return bicubic, the bundled models of that scale, and those with a graph with self-ensemble (a plus)."""
    models = [model for model in bundled_models() if model.scale == scale]
    methods = [Method("bicubic", scale)]
    for model in sorted(models, key=lambda model: model.name):
        name = model.name.removesuffix(f"-x{scale}")
        methods.append(Method(name, scale, MODELS / model.file))
        if model.kind != "plain":
            methods.append(Method(f"{name}+", scale, MODELS / model.file, ensemble=True))
    return methods


class Journal:
    """Scores of single images in a file of JSON lines; a line that a killed process tore is as if never written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scores: dict[Key, dict[str, dict[str, Any]]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                self._keep(json.loads(line))
            except (ValueError, KeyError):
                continue

    def add(self, method: Method, sha256: str, dataset: str, **values: Any) -> None:
        """Append one image's score."""
        line = {"method": method.name, "sha256": sha256, "scale": method.scale, "dataset": dataset, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("" if self._ends_well() else "\n") + json.dumps(line) + "\n")
        self._keep(line)

    def _ends_well(self) -> bool:
        content = self.path.read_bytes()[-1:]
        return content in (b"", b"\n")

    def _keep(self, line: dict[str, Any]) -> None:
        key = (line["method"], line["sha256"], line["scale"], line["dataset"])
        images = self.scores.pop(key, {})  # to the end: the newest model file is the last
        images[line["image"]] = {name: line[name] for name in ("psnr", "ssim", "seconds", "planned", "of")}
        self.scores[key] = images


def measure(methods: Iterable[Method], folders: list[Path], journal: Journal, limit: int | None) -> None:
    """Score what the journal does not hold yet: method by method, the first `limit` images by name of every folder."""
    images = {folder.name: list_images(folder) for folder in folders}
    work = [(method, dataset) for method in methods for dataset in images]
    total = sum(len(images[dataset][:limit]) for _, dataset in work)
    with tqdm(total=total, unit="image", disable=None) as bar:
        for method, dataset in work:
            sha256, upscale, paths = method.sha256, None, images[dataset]
            known = journal.scores.get((method.name, sha256, method.scale, dataset), {})
            bar.set_description(f"x{method.scale} {method.name} {dataset}")
            for path in paths[:limit]:
                planned = len(paths[:limit])
                if known.get(path.name, {}).get("planned", -1) < 0:
                    upscale = upscale or method.upscaler()
                    (score,) = score_image(path, dataset, {method.name: upscale}, method.scale)
                    values = {name: asdict(score)[name] for name in ("image", "psnr", "ssim", "seconds")}
                    journal.add(method, sha256, dataset, **values, planned=planned, of=len(paths))
                bar.update()


def summarise(journal: Journal) -> list[dict[str, Any]]:
    """Return the means of whole sets, and of the first n images where a method was measured on no more.

    Methods in one row group (scale, data set, images) were measured on the same images, so that they can be compared.
    Scores of a bundled model as it was before are left out.
    """
    bundled = _bundled_checksums()
    newest = {
        (key[0], key[2], key[3]): key for key in journal.scores if bundled.get((key[2], key[0]), key[1]) == key[1]
    }
    rows = []
    for scale, dataset in dict.fromkeys((scale, dataset) for _, scale, dataset in newest):
        scores = {
            key: journal.scores[key] for (_, s, d), key in newest.items() if (s, d) == (scale, dataset)
        }  # fmt: skip
        counts = {_complete(images) for images in scores.values()} - {0}
        for count in sorted(counts, reverse=True):
            for (method, sha256, _, _), images in scores.items():
                if _complete(images) < count:
                    continue
                first = [images[name] for name in sorted(images)[:count]]
                mean = {name: round(float(np.mean([score[name] for score in first])), 4) for name in ("psnr", "ssim")}
                of = first[0]["of"]
                rows.append(
                    {"scale": scale, "dataset": dataset, "images": count, "of": of, "method": method, **mean,
                     "model_sha256": sha256}
                )  # fmt: skip
    return rows


def _complete(images: dict[str, dict[str, Any]]) -> int:
    """Return how many images a run that came to its end measured; 0 if none did."""
    return max((score["planned"] for score in images.values() if score["planned"] <= len(images)), default=0)


def _merged(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Return the rows of the file with those of the journal in their place, in a fixed order.

    Rows of a bundled model as it was before are left out, and parts of a set where every method has the whole set.
    """
    old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    bundled = _bundled_checksums()
    old = [row for row in old if bundled.get((row["scale"], row["method"]), row["model_sha256"]) == row["model_sha256"]]

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["scale"], row["dataset"], row["images"], row["method"]

    merged = {key(row): row for row in [*old, *rows]}
    whole = {name[:2] + name[3:] for name, row in merged.items() if row["images"] == row["of"]}
    needed = {name[:3] for name in merged if name[:2] + name[3:] not in whole}  # parts that say what no whole set does
    return [row for name, row in sorted(merged.items()) if row["images"] == row["of"] or name[:3] in needed]


def _bundled_checksums() -> dict[tuple[int, str], str]:
    """Return the model file's checksum by scale and method."""
    return {(scale, method.name): method.sha256 for scale in (2, 3, 4) for method in bundled_methods(scale)}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ignn scoreboard", description=__doc__)
    parser.add_argument("--data", required=True, action="append", type=Path, metavar="FOLDER", help="HR images of one "
                        "test set, which is named like the folder; may be repeated")  # fmt: skip
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help="folder for scores.jsonl, to go on")
    parser.add_argument("--scale", action="append", type=int, choices=(2, 3, 4), help="may be repeated (default: all)")
    parser.add_argument("--only", action="append", metavar="METHOD", help="bicubic, edsr-s, ignn-s, ignn-s+ or a "
                        "peer's name; may be repeated (default: all)")  # fmt: skip
    parser.add_argument("--peer", action="append", nargs=4, default=[], metavar=("NAME", "SCALE", "RANGE", "FILE"),
                        help="another project's ONNX file, e.g. IMDN 2 0..1 imdn_x2.onnx; may be repeated")  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images by name of every set")
    parser.add_argument("--output", type=Path, default=SCORES, metavar="FILE", help="means (default: train/scores/)")
    return parser.parse_args(argv)


def _methods(arguments: argparse.Namespace) -> list[Method]:
    scales = arguments.scale or [2, 3, 4]
    methods = [method for scale in scales for method in bundled_methods(scale)]
    for name, scale, value_range, file in arguments.peer:
        if scale not in ("2", "3", "4") or value_range not in ("0..1", "0..255"):
            raise UsageError(f"Invalid --peer ({name} {scale} {value_range} {file}). Supported scales are 2, 3, 4; "
                             "ranges are 0..1, 0..255.")  # fmt: skip
        if not Path(file).is_file():
            raise UsageError(f"Invalid --peer ({name}). There is no file {file}.")
        if int(scale) in scales:
            methods.append(Method(name, int(scale), Path(file), value_range))
    unknown = set(arguments.only or ()) - {method.name for method in methods}
    if unknown:
        names = ", ".join(dict.fromkeys(method.name for method in methods))
        raise UsageError(f"Invalid --only ({', '.join(sorted(unknown))}). Supported values are {names}.")
    return [method for method in methods if not arguments.only or method.name in arguments.only]


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing, write the means, and say where they are (`ignn scoreboard`)."""
    arguments = _parse(argv)
    methods = _methods(arguments)
    for folder in arguments.data:
        if not folder.is_dir():
            raise UsageError(f"Folder {folder} does not exist. Give a folder of HR images, e.g. Set5.")
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"Invalid --limit ({arguments.limit}). It must be at least 1.")
    make_folder(arguments.run)
    journal = Journal(arguments.run / "scores.jsonl")
    measure(methods, arguments.data, journal, arguments.limit)
    rows = _merged(summarise(journal), arguments.output)
    write_text(arguments.output, dump(rows))
    sys.stdout.write(f"{arguments.output}: {len(rows)} means. Tables: python -m train.scoreboard_table\n")
    return 0


def dump(rows: list[dict[str, Any]]) -> str:
    """Return the file's text: a row a line."""
    protocol = "PSNR (dB) and SSIM on luma, rounded to 8 bits, as many border pixels left out as the scale"
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    return f'{{\n "protocol": "{protocol}",\n "rows": [\n{lines}\n ]\n}}\n'


if __name__ == "__main__":
    sys.exit(run_command("python -m train.scoreboard", main))
