"""Enlarging a picture opens no socket and leaves nothing in the user's folders, for every way in."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

WAYS_IN = {
    "command": "from runtime.cli import main; main(['upscale', picture, '-o', 'large.png', '--model', model])",
    "Python": "from runtime import SuperResolver; SuperResolver(model)(picture).save('large.png')",
    "the other name": "import runtime; from ignn import SuperResolver; SuperResolver(model)(picture).save('large.png')",
    "OpenVINO": "from runtime import SuperResolver; SuperResolver(model, backend='openvino')(picture).save('a.png')",
    "doctor": "from runtime.cli import main; main(['doctor'])",
}


def run_watched(program: str, folder: Path, arguments: list[Path], setting: str | None) -> tuple[list[str], list[str]]:
    """Run a program whose user has empty folders; returns what it left in them, and its network calls.

    The network calls are known only where strace is installed.
    """
    home, work = folder / "home", folder / "work"
    for created in (home / "tmp", work):
        created.mkdir(parents=True)
    # No other variable: ONNX Runtime sends nothing where one of them says that it runs in CI.
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment |= {"PYTHONPATH": str(REPOSITORY), "HOME": str(home), "TMPDIR": str(home / "tmp")}
    environment |= {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
    if setting is not None:
        environment["ORT_DISABLE_TELEMETRY"] = setting
    command = [sys.executable, "-c", f"import sys; picture, model = sys.argv[1:]; {program}", *map(str, arguments)]
    strace = shutil.which("strace")
    if strace is not None:
        command = [strace, "-f", "-qq", "-e", "trace=%network", "-o", str(folder / "calls"), *command]
    subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True, timeout=300)
    calls = (folder / "calls").read_text().splitlines() if strace is not None else []
    # Sockets without an address family of the Internet are the process's own (a pair to wake its threads).
    return [path.name for path in home.rglob("*") if path.is_file()], [call for call in calls if "AF_INET" in call]


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches a process as Linux does")


@pytest.mark.parametrize("way", WAYS_IN)
def test_nothing_is_sent_and_nothing_is_kept(way: str, tmp_path: Path, sample: Path, x2_model: Path) -> None:
    if way == "OpenVINO" and importlib.util.find_spec("openvino") is None:
        pytest.skip("could not import 'openvino'")
    assert run_watched(WAYS_IN[way], tmp_path, [sample, x2_model], None) == ([], [])


def test_a_users_own_setting_wins(tmp_path: Path, sample: Path, x2_model: Path) -> None:
    """And what the other tests watch would be seen, where this ONNX Runtime has telemetry at all."""
    from runtime.backends.onnx_runtime import onnxruntime

    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    if version < (1, 32):
        pytest.skip("this ONNX Runtime has no telemetry on Linux")
    left, _ = run_watched(WAYS_IN["Python"], tmp_path, [sample, x2_model], "0")
    assert "onnxruntime.db" in left
