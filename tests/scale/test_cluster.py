"""`ignn batch`: a folder or a bucket on a real Ray cluster, on loopback."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_server import REPOSITORY, free_ports, processes

from runtime import cli, errors
from runtime.commands import cluster
from runtime.commands.find import find_jobs
from runtime.serving.cluster import Actors, count_actors
from runtime.serving.storage import MARKS, Entry, Folder, key_of, mark_of

pytest.importorskip("ray", reason="needs the extra batch")
pytest.importorskip("pyarrow", reason="needs the extra batch")

COUNT = 8


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of small pictures, one below another folder, and one that is none."""
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for number in range(COUNT):
        image = Image.fromarray(rng.integers(0, 256, (48, 40 + number, 3), dtype=np.uint8))
        image.save(tmp_path / "in" / ("more" if number == 0 else ".") / f"{number}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "in"


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "runtime.cli", "batch", *map(str, arguments), "--model", "edsr-s-x2"]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ray_processes(parent: int) -> dict[int, str]:
    """Process IDs and names of everything below a process."""
    everything = list(processes())
    below, found = {parent}, {}
    while fresh := [entry for entry in everything if entry[1] in below and entry[0] not in below]:
        for pid, _, command in fresh:
            below.add(pid)
            found[pid] = command[0]
    return found


def wait_until_ended(pids: dict[int, str]) -> None:
    deadline = time.monotonic() + 20
    while left := {pid: command[0] for pid, _, command in processes() if pid in pids and command[0]}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_killed_actor_loses_nothing_and_the_files_are_those_of_the_plain_command(pictures, tmp_path, capsys):
    """And the failure is listed, the metrics are served, what is done is passed over, and nothing stays behind."""
    (port,) = free_ports(1)
    relative = os.path.relpath(pictures, REPOSITORY)  # the actors have another working folder
    process = start(relative, tmp_path / "out", "--actors", "2", "--metrics-port", str(port))
    everything: dict[int, str] = {}
    killed: int | None = None
    metrics = ""
    while process.poll() is None:
        everything |= ray_processes(process.pid)
        workers = [pid for pid, name in ray_processes(process.pid).items() if name.startswith("ray::MapWorker")]
        if killed is None and workers and list((tmp_path / "out").rglob("*.png")):
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as response:
                metrics = response.read().decode()
        except OSError:
            pass
        time.sleep(0.05)
    report = process.communicate()[1]
    assert process.returncode == 1
    assert killed is not None, report
    assert "bad.png: The picture is not an image" in report
    assert f"1 of {COUNT + 1} files failed" in report
    (failure,) = map(json.loads, (tmp_path / "out" / "ignn-failures.jsonl").read_text().splitlines())
    assert (failure["source"], failure["kind"]) == ("bad.png", "ImageReadError")
    assert len(list((tmp_path / "out" / MARKS).iterdir())) == COUNT
    assert re.search(r"^ignn_images_total [1-9]", metrics, re.MULTILINE)
    assert 'ignn_stage_seconds_total{stage="network"}' in metrics

    assert cli.main(["upscale", str(pictures), "-r", "-o", str(tmp_path / "plain"), "--model", "edsr-s-x2"]) == 1
    assert outputs(tmp_path / "out") == outputs(tmp_path / "plain")
    wait_until_ended(everything)

    # Nothing is left to do: Ray is not even started.
    (pictures / "bad.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    again = ["batch", str(pictures), str(tmp_path / "out"), "--model", "edsr-s-x2"]
    assert cli.main(again) == 0
    assert f"{COUNT} of {COUNT} files are done already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "out" / "ignn-failures.jsonl").exists()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The options of an S3 on loopback."""
    moto = pytest.importorskip("moto.server", reason="needs the extra test-serve")
    (port,) = free_ports(1)
    server = moto.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    before = dict(os.environ)
    os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_EC2_METADATA_DISABLED="true")
    yield f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    os.environ.clear()
    os.environ.update(before)
    server.stop()


@pytest.mark.cluster
def test_two_nodes_and_a_bucket(pictures, s3, tmp_path):
    """From a bucket to a bucket, one of two nodes lost in the middle."""
    if {name for _, name in socket.if_nameindex()} != {"lo"}:
        pytest.skip("needs a network namespace, as CONTRIBUTING.md makes it: Ray takes the machine's own address")
    from ray.cluster_utils import Cluster

    Folder(f"s3://pictures?{s3}")._system.create_dir("pictures")
    source, target = Folder(f"s3://pictures/in?{s3}"), Folder(f"s3://pictures/out?{s3}")
    for path in pictures.rglob("*.png"):
        source.write(path.relative_to(pictures).as_posix(), path.read_bytes())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.1"})
    node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    try:
        process = start(source.address, target.address, "--address", cluster.address, "--actors", "2")
        deadline = time.monotonic() + 120
        while len(target.list()) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)
        report = process.communicate(timeout=180)[1]
        assert process.returncode == 1, report
    finally:
        cluster.shutdown()
    assert cli.main(["upscale", str(pictures), "-r", "-o", str(tmp_path / "plain"), "--model", "edsr-s-x2"]) == 1
    names = [entry.name for entry in target.list() if entry.name.endswith(".png")]
    assert len(names) == COUNT, report
    assert {name: target.read(name) for name in names} == outputs(tmp_path / "plain")


def test_a_bucket_is_a_folder(s3):
    Folder(f"s3://bucket?{s3}")._system.create_dir("bucket")
    folder = Folder(f"s3://bucket/in?{s3}")
    assert folder.list() == []
    assert not folder.is_folder()
    folder.write("more/a.png", b"abc")
    ((entry),) = folder.list()
    assert (entry.name, entry.size) == ("more/a.png", 3)
    assert folder.is_folder()
    assert folder.has("more/a.png")
    assert folder.read("more/a.png") == b"abc"
    folder.delete(["more/a.png", "more/nothing"])
    assert not folder.has("more/a.png")
    with pytest.raises(errors.StorageError, match="bucket/in/nothing"):
        folder.read("nothing")


def test_outputs_have_the_suffixes_of_the_plain_command(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("b.bmp", "c.JPG", "d.tga"):
        Image.new("RGB", (4, 4)).save(tmp_path / "in" / name)
    header = (tmp_path / "in" / "b.bmp").read_bytes()[:14]
    masks = struct.pack("<IiiHHIIiiIIIIII", 56, 4, 4, 1, 32, 3, 64, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    (tmp_path / "in" / "a.bmp").write_bytes(header[:10] + struct.pack("<I", 14 + len(masks)) + masks + bytes(64))
    tasks, _ = cluster._plan(Folder(str(tmp_path / "in")), Folder(str(tmp_path / "out")), None, "")
    plain = find_jobs([str(tmp_path / "in")], str(tmp_path / "out"))
    names = [task.target for task in tasks]
    assert names == [job.target.name for job in plain] == ["a.png", "b.bmp", "c.JPG", "d.png"]


def test_a_folder_on_disk(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path / "new"))
    assert folder.list() == []
    folder.write("more/a.png", b"abc")
    folder.write("more/a.png", b"abcd")
    assert [path.name for path in (tmp_path / "new" / "more").iterdir()] == ["a.png"]
    ((entry),) = folder.list()
    assert (entry.name, entry.size, entry.time) == ("more/a.png", 4, (tmp_path / "new/more/a.png").stat().st_mtime_ns)
    assert pickle.loads(pickle.dumps(folder)).read("more/a.png") == b"abcd"
    monkeypatch.chdir(tmp_path)
    relative = pickle.dumps(Folder("new"))
    monkeypatch.chdir("/")
    assert pickle.loads(relative).read("more/a.png") == b"abcd"
    assert Folder(f"file://{tmp_path}/new/more").lies_in(folder)
    assert not folder.lies_in(Folder(str(tmp_path / "ne")))
    for address in ("nonesuch://a/b", "s3://", "memory://a"):
        with pytest.raises(errors.StorageError, match=r"s3://bucket/folder"):
            Folder(address)


def test_a_key_holds_all_that_decides_an_output():
    entry = Entry("a.png", 3, 5)
    keys = {key_of(entry, "x"), key_of(entry, "y"), *(key_of(other, "x") for other in OTHERS)}
    assert len(keys) == 5
    assert mark_of("a.png", "k") != mark_of("b.png", "k")


OTHERS = (Entry("b.png", 3, 5), Entry("a.png", 4, 5), Entry("a.png", 3, 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{in}", "{in}/out"], "outputs would be inputs"),
        (["{in}/nothing", "{out}"], "There is no folder"),
        (["{in}/empty", "{out}"], "There are no pictures"),
        (["{in}", "{out}", "--format", "png"], "would both become 1.png"),
        (["{in}", "{out}", "--device", "1"], "Leave out --device and --devices"),
        (["{in}", "{out}", "--model", "nonesuch"], "nonesuch"),
        (["{in}", "{out}", "--quality", "101"], "quality"),
        (["{in}", "nonesuch://a"], "Cannot use nonesuch://a"),
        (["{in}", "{out}", "--metrics-port", "99999"], "Give another --metrics-port"),
        (["{in}", "{out}", "--address", "127.0.0.1:9"], "There is no Ray cluster at 127.0.0.1:9"),
    ],
)
def test_bad_arguments(arguments, message, pictures, tmp_path, capsys):
    (pictures / "empty").mkdir()
    (pictures / "1.jpg").write_bytes(b"")
    if "--format" not in arguments:
        (pictures / "1.jpg").unlink()
    places = {"in": str(pictures), "out": str(tmp_path / "out")}
    assert cli.main(["batch", *(argument.format(**places) for argument in arguments)]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.png"))


@pytest.mark.parametrize(
    ("resources", "actors", "count"),
    [
        ({"CPU": 8}, Actors(), 8),
        ({"CPU": 8}, Actors(threads=4), 2),
        ({"CPU": 8}, Actors(count=3, threads=2), 3),
        ({"CPU": 8, "GPU": 2}, Actors(gpus=0.5), 4),
        ({"CPU": 8, "GPU": 2}, Actors(count=1, gpus=2), 1),
    ],
)
def test_the_number_of_actors(resources, actors, count):
    assert count_actors(resources, actors) == count


@pytest.mark.parametrize(
    ("resources", "actors"),
    [({"CPU": 2}, Actors(count=3)), ({"CPU": 2}, Actors(gpus=1)), ({"CPU": 2}, Actors(threads=4)), ({}, Actors())],
)
def test_too_few_resources(resources, actors):
    with pytest.raises(errors.ClusterError, match="too few"):
        count_actors(resources, actors)
