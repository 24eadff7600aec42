"""`ignn upscale --shard`: together the shards are the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from runtime import cli, errors
from runtime.commands.jobs import Job, take_shard

JOBS = [Job(Path(f"{n}.png"), Path(f"out/{n}.png")) for n in range(7)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_the_union_of_the_shards_is_the_whole(count):
    shards = [take_shard(JOBS, f"{index}/{count}") for index in range(count)]
    assert sorted(job.source for shard in shards for job in shard) == [job.source for job in JOBS]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("shard", ["", "1", "4/4", "-1/4", "0/0", "a/b", "1/2/3", "0.5/2", "\u00b2/4"])
def test_what_is_no_shard(shard, tmp_path, capsys):
    with pytest.raises(errors.UsageError, match="--shard"):
        take_shard(JOBS, shard)
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    assert cli.main(["upscale", str(tmp_path), "-o", str(tmp_path / "out"), f"--shard={shard}"]) == 1
    assert "--shard" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shards_of_a_folder(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for n in range(5):
        Image.new("RGB", (16, 16), (n, 0, 0)).save(tmp_path / "in" / f"{n}.png")
    command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--threads", "1", "--resume"]
    assert cli.main([*command, "--shard", "1/3"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["1.png", "4.png"]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    for index in range(4):  # another n takes over what is done
        assert cli.main([*command, "--shard", f"{index}/4"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [f"{n}.png" for n in range(5)]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "5 of 5 files are done already" in capsys.readouterr().err


def test_a_shard_without_files(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    assert cli.main(["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--shard", "1/2"]) == 0
    assert not list((tmp_path / "out").glob("*.png"))
