"""Training: configuration, resuming, stopping, several processes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.atomic import PART_SUFFIX
from runtime.cli import run_command
from train import fit
from train.checkpoint import read_checkpoint
from train.data import PatchSource
from train.fit import learning_rate
from train.fit_config import FitConfig, parse_config
from train.graph_picture import graph_loss
from train.graph_report import graph_shares

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ["--network", "channels=8", "--network", "blocks=2", "--network", "graph_after=1", "--network", "window=4"]
SMALL_RUN = [*TINY, "--batch", "2", "--patch", "16", "--no-tensorboard", "--device", "cpu", "--log-every", "1"]


def main(arguments):
    """Run the command as a user does: errors are printed, and the exit code is returned."""
    return run_command("ignn train", lambda: fit.main(arguments))


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A folder of photographs and a file of embedding weights in torchvision's names."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        coarse.resize((80, 64), Image.Resampling.BICUBIC).save(folder / "photos" / f"{number}.png")
    torch.manual_seed(0)
    shapes = {"0.weight": (64, 3, 3, 3), "0.bias": (64,), "2.weight": (64, 64, 3, 3), "2.bias": (64,)}
    weights = {f"features.{name}": torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    torch.save(weights, folder / "vgg.pth")
    return folder


@pytest.fixture
def arguments(material, tmp_path):
    return [
        *("--data", str(material / "photos"), "--embedding", str(material / "vgg.pth")),
        *("--output", str(tmp_path / "run"), *SMALL_RUN),
    ]


def start_process(arguments, launcher=("-m", "train.fit")):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *launcher, *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def losses(run):
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def wait_for_step(process, run, step):
    while process.poll() is None and (not (run / "log.jsonl").exists() or max(losses(run), default=0) < step):
        time.sleep(0.01)


def assert_same_weights(one, other):
    a, b = (read_checkpoint(run / "last.pt") for run in (one, other))
    for before, after in (
        (a.weights, b.weights),
        (a.run.raw_weights, b.run.raw_weights),
        (a.run.graph_picture, b.run.graph_picture),
    ):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


# --- configuration ---


def test_flags_win_over_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('data = "photos"\nbatch = 8\nclip = 1\nbf16 = true\n[network]\nwindow = 10\ngraph = "none"\n')
    config = parse_config(["--config", str(file), "--batch", "2", "--no-bf16", "--network", "graph=same-scale"])
    assert (config.data, config.batch, config.clip, config.bf16) == ("photos", 2, 1.0, False)
    assert (config.net.window, config.net.graph, config.net.channels) == (10, "same-scale", 256)
    file.write_text('data = "photos"\ncopies = [0.8, 0.5]\n')
    assert parse_config(["--config", str(file)]).copies == (0.8, 0.5)
    assert parse_config(["--config", str(file), "--copies", "0.7"]).copies == (0.7,)
    assert parse_config(["--config", str(file), "--copies"]).copies == ()


def test_defaults_are_the_papers_recipe():
    config = FitConfig(data="photos")
    assert (config.steps, config.batch, config.patch, config.learning_rate) == (800_000, 4, 60, 1e-4)
    assert [learning_rate(config, step) for step in (0, 199_999, 200_000, 600_000)] == [1e-4, 1e-4, 5e-5, 1.25e-5]


def test_cosine_restarts_and_warms_up():
    config = FitConfig(data="photos", schedule="cosine", period=100, warmup=10, learning_rate=1.0)
    assert learning_rate(config, 4) == 0.5
    assert learning_rate(config, 99) < 0.02
    assert learning_rate(config, 100) == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bacth = 4", "Unknown key (bacth)"),
        ('batch = "4"', "Invalid batch ('4')"),
        ("stage = 'all'", "Supported values are backbone, whole"),
        ("[network]\nwidth = 4", "Unknown configuration field (width)"),
        ("patch = 2", "at least 12 pixels"),
        ("copies = [0.5, 2.0]", "Invalid copies (2.0)"),
        ("copies = 0.5", "Invalid copies (0.5)"),
        ("data = [", "cannot be read"),
        ("", "--data FOLDER"),
    ],
)
def test_wrong_configuration_is_named(tmp_path, capsys, text, message):
    file = tmp_path / "run.toml"
    file.write_text(text)
    assert main(["--config", str(file)] + (["--data", "photos"] if text and "data" not in text else [])) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- a run ---


def test_checkpoint_tells_what_made_it(arguments, tmp_path, capsys):
    assert main([*arguments, "--steps", "3", "--seed", "5", "--validate-every", "2"]) == 0
    assert "done" in capsys.readouterr().out
    checkpoint = read_checkpoint(tmp_path / "run" / "last.pt")
    assert checkpoint.run.step == 3
    assert checkpoint.run.fit["seed"] == 5
    assert checkpoint.run.fit["network"]["window"] == checkpoint.config.window == 4
    assert len(checkpoint.run.data_sha256) == 64
    assert checkpoint.run.versions["torch"] == torch.__version__
    assert checkpoint.network().config.channels == 8
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    validations = [record for record in records if "psnr" in record]
    assert [record["step"] for record in validations] == [2, 3]
    assert all(0 < record["graph_share_fuse_up"] < 1 for record in validations)
    assert list(losses(tmp_path / "run")) == [1, 2, 3]


def test_tensorboard_has_curves_and_pictures(arguments, tmp_path):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main([*arguments, "--steps", "2", "--tensorboard"]) == 0
    events = module.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"loss", "psnr", "images_per_second"} <= set(events.Tags()["scalars"])
    (picture,) = events.Images("bicubic, network, truth/0")
    assert (picture.width, picture.height) == (3 * 80, 64)


def test_training_lowers_the_loss(arguments, tmp_path):
    assert main([*arguments, "--steps", "40", "--learning-rate", "1e-3", "--bf16"]) == 0
    curve = list(losses(tmp_path / "run").values())
    assert np.mean(curve[-5:]) < 0.7 * np.mean(curve[:5])


def test_muon_takes_the_convolutions_between_feature_maps(arguments, tmp_path, capsys):
    assert main([*arguments, "--steps", "1", "--output", str(tmp_path / "start")]) == 0
    start = ["--start", str(tmp_path / "start" / "last.pt"), "--ema", "0", "--warmup", "0"]
    moved = {}
    for name, rates in {"both": (1e-9, 0.01), "adam": (1e-9, 0)}.items():
        flags = [*arguments, *start, "--output", str(tmp_path / name), "--steps", "1"]
        assert main([*flags, "--learning-rate", str(rates[0]), "--muon", str(rates[1])]) == 0
        before, after = (read_checkpoint(tmp_path / run / "last.pt").weights for run in ("start", name))
        moved[name] = {key for key in before if (after[key] - before[key]).norm() > 1e-3}
    assert moved["adam"] == set()
    assert {"body1.0.body.0.weight", "upsample.0.weight", "gcn.knn_downsample.0.0.weight"} <= moved["both"]
    assert all(key.endswith("weight") and not key.startswith(("head", "tail", "embedding")) for key in moved["both"])
    capsys.readouterr()
    assert main([*arguments, *start, "--output", str(tmp_path / "both"), "--steps", "2"]) == 1
    assert "muon = 0.01, not 0.0" in capsys.readouterr().err


def test_backbone_then_whole(arguments, tmp_path, capsys):
    first = [*arguments, "--stage", "backbone", "--steps", "1"]
    assert main(first) == 0
    start = ["--start", str(tmp_path / "run" / "last.pt"), "--output", str(tmp_path / "whole"), "--steps", "1"]
    assert main([*arguments, *start]) == 0
    capsys.readouterr()
    assert main([*arguments, "--steps", "1"]) == 1  # the folder holds the other stage
    assert "another network or stage" in capsys.readouterr().err
    assert main([*arguments, *start, "--output", str(tmp_path / "wide"), "--network", "channels=12"]) == 1
    assert "fits no block" in capsys.readouterr().err


def test_a_graph_without_embedding_is_refused(arguments, tmp_path, capsys):
    without = [*arguments, "--embedding", ""]
    assert main([*without, "--steps", "1"]) == 1
    assert "--embedding FILE" in capsys.readouterr().err
    assert main([*without, "--stage", "backbone", "--steps", "1", "--output", str(tmp_path / "bare")]) == 0
    assert main([*without, "--start", str(tmp_path / "bare" / "last.pt"), "--steps", "1"]) == 1
    wrong = ["--embedding", str(tmp_path / "bare" / "last.pt"), "--output", str(tmp_path / "other")]
    assert main([*arguments, *wrong, "--steps", "1"]) == 1
    assert "no VGG19" in capsys.readouterr().err


GRAPH_LOSS = ["--graph-loss", "0.5", "--learning-rate", "1e-3"]


@pytest.mark.parametrize(("scale", "patch"), [("2", "16"), ("3", "18"), ("4", "16")])
def test_the_graphs_own_picture_learns(arguments, scale, patch, tmp_path, monkeypatch):
    """The second loss falls, at x4 too, where the picture is half as large as the photograph."""
    seen = []

    def spy(picture, hr):
        seen.append(float(graph_loss(picture.detach(), hr)))
        return graph_loss(picture, hr)

    monkeypatch.setattr(fit, "graph_loss", spy)
    assert main([*arguments, *GRAPH_LOSS, "--scale", scale, "--patch", patch, "--steps", "30"]) == 0
    assert len(seen) == 30
    assert np.mean(seen[-5:]) < 0.9 * np.mean(seen[:5])
    checkpoint = read_checkpoint(tmp_path / "run" / "last.pt")
    assert set(checkpoint.run.graph_picture) == {"weight", "bias"}
    assert not [name for name in checkpoint.weights if "picture" in name], "the network itself does not hold it"


def test_the_graphs_own_picture_is_averaged_down_at_x4():
    picture, hr = torch.zeros(1, 3, 2, 2), torch.arange(4.0).repeat_interleave(12).view(1, 3, 4, 4)
    assert graph_loss(picture, hr) == pytest.approx(float(hr.mean()))
    assert graph_loss(torch.nn.functional.avg_pool2d(hr, 2), hr) == 0


def test_a_run_with_the_second_loss_resumes_exactly(arguments, tmp_path):
    command = [*arguments, *GRAPH_LOSS, "--muon", "0.01"]
    assert main([*command, "--steps", "4"]) == 0
    broken = [*command, "--output", str(tmp_path / "broken")]
    assert main([*broken, "--steps", "2"]) == 0
    halfway = read_checkpoint(tmp_path / "broken" / "last.pt").run.graph_picture["weight"]
    assert main([*broken, "--steps", "4"]) == 0
    assert_same_weights(tmp_path / "run", tmp_path / "broken")
    assert not torch.equal(halfway, read_checkpoint(tmp_path / "broken" / "last.pt").run.graph_picture["weight"])


def test_the_second_loss_neither_begins_nor_ends_along_a_run(arguments, capsys):
    assert main([*arguments, *GRAPH_LOSS, "--steps", "1"]) == 0
    assert main([*arguments, "--steps", "2"]) == 1
    assert "graph_loss = 0.5, not 0.0" in capsys.readouterr().err


@pytest.mark.parametrize("without", [["--stage", "backbone"], ["--network", "graph=none"]])
def test_the_second_loss_needs_a_graph(arguments, without, capsys):
    assert main([*arguments, *GRAPH_LOSS, *without, "--steps", "1"]) == 1
    assert "Invalid graph_loss (0.5)" in capsys.readouterr().err


# --- the graph of errors ---


def test_the_graph_of_errors_learns_on_a_backbone_that_stays(arguments, tmp_path):
    before, after = train_graph(arguments, "errors", tmp_path)
    plain = [name for name in before.weights if name.startswith(("head", "body", "upsample", "tail"))]
    assert plain
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in plain)
    assert after.weights["errors.doubt.weight"].abs().max() > 0
    assert after.stage == "graph"
    assert after.network().config.graph == "errors"


def test_the_papers_graph_learns_on_a_backbone_that_stays(arguments, tmp_path):
    before, after = train_graph(arguments, "graphagg", tmp_path)
    plain = [name for name in before.weights if name.startswith(("head", "body", "upsample"))]
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in plain)
    shares = graph_shares(after.network())
    assert shares["fuse_b"] > 0


def train_graph(arguments, graph, tmp_path):
    """Return the checkpoints of a backbone and of a graph trained on it."""
    backbone = tmp_path / "run" / "last.pt"
    assert main([*arguments, "--stage", "backbone", "--steps", "2"]) == 0
    graph = [*arguments, "--network", f"graph={graph}", "--stage", "graph", "--loss", "psnr", "--start", str(backbone)]
    assert main([*graph, "--output", str(tmp_path / "graph"), "--steps", "3", "--validate-every", "3"]) == 0
    return (read_checkpoint(tmp_path / run / "last.pt") for run in ("run", "graph"))


@pytest.mark.parametrize(
    "wrong", [["--start", "backbone.pt", "--network", "graph=none"], ["--network", "graph=errors"]]
)
def test_the_stage_of_the_graph_needs_both(arguments, wrong, capsys):
    assert main([*arguments, "--stage", "graph", *wrong, "--steps", "1"]) == 1
    assert "--network graph=errors --start BACKBONE.pt" in capsys.readouterr().err


def test_the_psnr_loss_is_psnr_turned_round():
    hr = torch.zeros(2, 3, 8, 8)
    sr = hr + torch.tensor([3.0, 1.0]).view(2, 1, 1, 1)
    expected = 10 * (np.log10(9 + 1) + np.log10(1 + 1)) / 2
    assert float(fit.LOSSES["psnr"](sr, hr)) == pytest.approx(expected)


# --- survival ---


@pytest.mark.parametrize("muon", ["0", "0.01"])
def test_killed_at_any_moment_it_resumes_to_the_same_weights(arguments, muon, tmp_path):
    command = [*arguments, "--steps", "30", "--save-every", "2", "--muon", muon]
    unbroken = start_process([*command, "--output", str(tmp_path / "unbroken")])
    for step, delay in ((3, 0.0), (7, 0.03)):
        broken = start_process(command)
        wait_for_step(broken, tmp_path / "run", step)
        time.sleep(delay)
        broken.kill()
        broken.communicate(timeout=120)
    assert read_checkpoint(tmp_path / "run" / "last.pt").run.step < 30
    last = start_process(command)
    assert b"done" in last.communicate(timeout=120)[0]
    assert b"done" in unbroken.communicate(timeout=120)[0]
    assert_same_weights(tmp_path / "run", tmp_path / "unbroken")
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")


def test_a_full_disk_stops_it_and_keeps_the_checkpoint(arguments, tmp_path, capsys):
    last = tmp_path / "run" / "last.pt"
    assert main([*arguments, "--steps", "1"]) == 0
    good = last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, limits[1]))  # as if the disk were full there
    try:
        assert main([*arguments, "--steps", "2"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"error: Cannot write {last}" in capsys.readouterr().err
    assert last.read_bytes() == good
    assert not list(last.parent.glob(f".*{PART_SUFFIX}"))


def test_what_a_killed_process_left_is_removed(arguments, tmp_path):
    last = tmp_path / "run" / "last.pt"
    assert main([*arguments, "--steps", "1"]) == 0
    leftover = last.with_name(f".last.pt.0123abcd{PART_SUFFIX}")
    leftover.write_bytes(b"half of a checkpoint")
    assert main([*arguments, "--steps", "2"]) == 0
    assert not leftover.exists()


def test_nan_stops_it_and_keeps_the_checkpoint(arguments, tmp_path, capsys, monkeypatch):
    assert main([*arguments, "--steps", "2"]) == 0
    good = (tmp_path / "run" / "last.pt").read_bytes()
    cut = PatchSource.batch

    def poisoned(self, step, *rest):
        lr, hr = cut(self, step, *rest)
        return lr, hr * torch.nan if step == 3 else hr

    monkeypatch.setattr(PatchSource, "batch", poisoned)
    assert main([*arguments, "--steps", "9", "--save-every", "4"]) == 1
    assert "Loss is nan at step 3" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.pt").read_bytes() == good


def test_sigterm_saves_and_stops(arguments, tmp_path):
    process = start_process([*arguments, "--steps", "100000", "--save-every", "100000"])
    wait_for_step(process, tmp_path / "run", 3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert b"stopped; the same command goes on" in output
    assert read_checkpoint(tmp_path / "run" / "last.pt").run.step == max(losses(tmp_path / "run")) >= 3


def test_time_limit_saves_and_stops(arguments, tmp_path, capsys):
    started = time.monotonic()
    before = signal.getsignal(signal.SIGTERM)
    assert main([*arguments, "--steps", "100000", "--save-every", "100000", "--time-limit", "0.03"]) == 0
    assert time.monotonic() - started < 30
    assert "stopped" in capsys.readouterr().out
    assert 0 < read_checkpoint(tmp_path / "run" / "last.pt").run.step < 100000
    assert signal.getsignal(signal.SIGTERM) is before


def test_resuming_with_other_data_says_so(arguments, tmp_path, capsys):
    assert main([*arguments, "--steps", "1"]) == 0
    assert main([*arguments, "--steps", "2", "--patch", "18"]) == 0
    assert "resumed, but" not in capsys.readouterr().err
    assert main([*arguments, "--steps", "3", "--batch", "3"]) == 0
    assert "the batch is another" in capsys.readouterr().err


# --- several processes ---


TWO_PROCESSES = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def test_two_processes_have_the_loss_curve_of_twice_the_batch(arguments, tmp_path):
    single = start_process([*arguments, "--steps", "5", "--batch", "4", "--output", str(tmp_path / "single")])
    double = start_process([*arguments, "--steps", "5", "--batch", "2"], (*TWO_PROCESSES, "-m", "train.fit"))
    for process in (single, double):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()
    one, two = losses(tmp_path / "single"), losses(tmp_path / "run")
    assert list(one) == list(two) == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-4)


LEAVE_THE_GROUP = """
import time
import torch
from contextlib import suppress
from pathlib import Path
from train.distributed import ProcessGroup

def threads_of_gloo():
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended since it was listed
            names.append((task / "comm").read_text())
    return [name for name in names if "gloo" in name]

group = ProcessGroup("cpu")
torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
group.average([torch.ones(3)])
assert threads_of_gloo(), "they have other names now, or there are none"
group.close()
end = time.monotonic() + 10  # the system lists a thread for a moment after it was joined
while threads_of_gloo() and time.monotonic() < end:
    time.sleep(0.01)
assert not threads_of_gloo(), threads_of_gloo()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to list threads")
def test_the_threads_of_a_group_end_with_it(tmp_path):
    (tmp_path / "leave.py").write_text(LEAVE_THE_GROUP)
    process = start_process([str(tmp_path / "leave.py")], TWO_PROCESSES)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode()
