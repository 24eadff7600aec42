"""The list of training photographs: what is missing or changed is said, and evaluation images are refused."""

from __future__ import annotations

import hashlib

import pytest
from PIL import Image

from runtime.errors import IgnnError, UsageError
from train import photographs
from train.data import open_patches
from train.photographs import PhotographSet, check_folder, main, photograph_sets, training_sets


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A folder with one photograph, a list that holds it, and a list of one evaluation image."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.effect_noise((64, 64), 60).convert("RGB").save(folder / "a.png")
    Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "measured.png")
    sha256 = {name: hashlib.sha256(path.read_bytes()).hexdigest()
              for name, path in (("a", folder / "a.png"), ("measured", tmp_path / "measured.png"))}  # fmt: skip
    sets = (
        PhotographSet("some/training", "training", "CC0", "somebody", {"a.png": sha256["a"]}),
        PhotographSet("some/test", "evaluation", "CC0", "somebody", {"m.png": sha256["measured"], "unseen.png": None}),
    )
    monkeypatch.setattr(photographs, "photograph_sets", lambda: ("https://example.org/corpus", "c0ffee", sets))
    photographs._evaluation_images.cache_clear()
    yield folder
    photographs._evaluation_images.cache_clear()


def test_the_committed_list_keeps_training_and_evaluation_apart():
    _, commit, sets = photograph_sets()
    assert len(commit) == 40
    assert [len(item.files) for item in training_sets()] == [209, 26]
    training, evaluation = (
        {key for item in sets if item.use == use for pair in item.files.items() for key in pair if key}
        for use in ("training", "evaluation")
    )
    assert training.isdisjoint(evaluation)
    assert all(len(sha256) == 64 for item in training_sets() for sha256 in item.files.values())


def test_a_whole_folder(listed, capsys):
    assert main([str(listed.parent / "photographs")]) == 0
    assert "some/training: 1 of 1 photographs, CC0" in capsys.readouterr().out


def test_what_is_missing_or_changed_is_named_with_the_commands_that_get_it(listed):
    (listed / "a.png").write_bytes(b"another file")
    with pytest.raises(IgnnError, match=r"1 not the listed files \(a.png\)"):
        check_folder(listed)
    (listed / "a.png").unlink()
    with pytest.raises(
        IgnnError, match=r"1 missing \(a.png\)(.|\n)*sparse-checkout set some/training\n.*checkout c0ffee"
    ):
        check_folder(listed)
    with pytest.raises(UsageError, match=r"does not exist(.|\n)*git clone"):
        check_folder(listed / "none")


@pytest.mark.parametrize("name", ["renamed.png", "unseen.png", "unseen.png.webp"])
def test_evaluation_images_are_refused_by_content_and_by_name(listed, tmp_path, name):
    """A renamed copy is known by its checksum; one whose checksum is not known, or that was converted, by its name."""
    (listed / name).write_bytes((tmp_path / "measured.png").read_bytes() if name == "renamed.png" else b"converted")
    with pytest.raises(UsageError, match=name):
        check_folder(listed)
    with pytest.raises(UsageError, match="some/test"):
        open_patches(listed, 2, 8, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    (listed / name).unlink()
    assert len(open_patches(listed, 2, 8, tmp_path / "cache").entries) == 1
