"""Training data: decoding and patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.atomic import PART_SUFFIX
from runtime.errors import ImageReadError, UsageError
from train.augment import draw_variations, vary
from train.data import list_images, make_lr, open_patches, read_rgb
from train.gpu import PatchCutter
from train.loader import BatchLoader
from train.resize import downsample_bicubic


def write_photos(folder, count=4, height=64, width=80):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"photo_{number}.png")
    return folder


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


def test_bad_files_are_listed_and_skipped(photos, tmp_path):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (photos / "cut.png").write_bytes((photos / "photo_0.png").read_bytes()[:300])
    Image.new("RGB", (30, 90)).save(photos / "small.png")
    Image.new("RGB", (1, 1)).save(photos / "tiny.png")
    (photos / "notes.txt").write_text("no image")
    source = open_patches(photos, 2, 16, tmp_path / "cache")
    assert len(source.entries) == 4
    assert [line.split(":")[0] for line in source.skipped] == ["broken.png", "cut.png", "small.png", "tiny.png"]
    assert "30 x 90 pixels" in source.skipped[2]


def test_decodes_once(photos, tmp_path):
    first = open_patches(photos, 2, 16, tmp_path / "cache")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again = open_patches(photos, 2, 16, tmp_path / "cache")
    assert again.checksum == first.checksum
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == files
    assert sorted(path.suffix for path in files) == [".bin", ".json"]


def test_nothing_is_left_of_a_decoding_that_fails(photos, tmp_path, monkeypatch):
    def fail(hr, scale):
        assert list((tmp_path / "cache").glob(f".*{PART_SUFFIX}")), "the pixels are written under another name"
        raise KeyboardInterrupt

    monkeypatch.setattr("train.data.make_lr", fail)
    with pytest.raises(KeyboardInterrupt):
        open_patches(photos, 2, 16, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_errors_name_the_file_or_the_folder(tmp_path):
    with pytest.raises(UsageError, match=f"No image in {tmp_path}"):
        list_images(tmp_path)
    with pytest.raises(ImageReadError, match=r"none\.png cannot be read as an image: No such file"):
        read_rgb(tmp_path / "none.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ImageReadError, match=r"broken\.png cannot be read"):
        read_rgb(tmp_path / "broken.png")
    with pytest.raises(ImageReadError, match="No usable photograph"):
        open_patches(tmp_path, 2, 16, tmp_path / "cache")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_aligned_and_depend_on_seed_and_step_alone(photos, tmp_path, scale):
    source = open_patches(photos, scale, 12, tmp_path / "cache", held_out=1)
    lr, hr = source.batch(5, 7, 4, 12)
    assert lr.shape == (4, 3, 12, 12)
    assert hr.shape == (4, 3, 12 * scale, 12 * scale)
    # Reducing the HR patch gives the LR patch, away from the border.
    for small, large in zip(lr, hr, strict=True):
        reduced, _ = make_lr(np.ascontiguousarray(large.permute(1, 2, 0).numpy()), scale)
        difference = np.abs(reduced.astype(int) - small.permute(1, 2, 0).numpy())[3:-3, 3:-3]
        assert difference.max() <= 2  # rows and columns are rounded in another order when turned
    same_lr, same_hr = open_patches(photos, scale, 12, tmp_path / "cache", held_out=1).batch(5, 7, 4, 12)
    assert torch.equal(lr, same_lr)
    assert torch.equal(hr, same_hr)
    assert not torch.equal(lr, source.batch(6, 7, 4, 12)[0])
    # Two processes cut what one would.
    assert torch.equal(lr, torch.cat([source.batch(5, 7, 2, 12, first)[0] for first in (0, 2)]))


@pytest.mark.parametrize("scale", [2, 3])
def test_patches_cut_on_the_device_are_the_same(photos, tmp_path, scale):
    source = open_patches(photos, scale, 12, tmp_path / "cache", held_out=1)
    cutter = PatchCutter(source, 12, torch.device("cpu"))
    for step in range(4):
        cut = cutter.cut(cutter.places(source.draw(step, 7, 16, 12, 1)))
        for mine, expected in zip(cut, source.batch(step, 7, 16, 12, 1), strict=True):
            assert torch.equal(mine, expected)
            assert mine.is_contiguous(memory_format=torch.channels_last)


def test_held_out_images_are_the_same_and_never_trained_on(photos, tmp_path):
    Image.new("RGB", (80, 64), (255, 0, 0)).save(photos / "z_last.png")
    source = open_patches(photos, 2, 16, tmp_path / "cache", held_out=1)
    assert source.validation_images == [4]
    assert (source.image(4)[1] == (255, 0, 0)).all()
    red = torch.tensor([255, 0, 0]).view(1, 3, 1, 1)
    assert not any((source.batch(step, 0, 4, 16)[0] == red).all(dim=(1, 2, 3)).any() for step in range(20))
    most = open_patches(photos, 2, 16, tmp_path / "cache", held_out=9)
    assert (most.trained, most.validation_images) == (4, [4])  # a quarter of five


def test_reduced_copies_follow_their_photograph(photos, tmp_path):
    Image.new("RGB", (80, 64), (255, 0, 0)).save(photos / "z_last.png")
    source = open_patches(photos, 2, 16, tmp_path / "cache", held_out=1, copies=(0.75, 0.5, 0.25))
    # The last factor leaves no patch of 32 x 32.
    assert [source.image(number)[1].shape[:2] for number in range(3)] == [(64, 80), (48, 60), (32, 40)]
    assert len(source.entries) == 15
    assert (source.trained, source.validation_images) == (12, [12])  # copies of what is held out are too
    drawn = {number for step in range(9) for number in source.draw(step, 0, 64, 16)[:, 0]}
    assert {0, 1, 3, 4, 9, 10} <= drawn <= set(range(12))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_varied_patches_are_reductions_still(scale):
    hr = 255 * torch.rand(8, 3, 12 * scale, 12 * scale, generator=torch.Generator().manual_seed(0))
    lr = downsample_bicubic(hr, scale)
    variations = draw_variations(3, 0, 8)
    assert all(len(column.unique()) > 1 for column in variations.T)
    varied_lr, varied_hr = vary(lr, hr, variations)
    assert not any(torch.equal(before, after) for before, after in zip(hr, varied_hr, strict=True))
    assert torch.allclose(downsample_bicubic(varied_hr, scale), varied_lr, atol=1e-3)


def test_variations_depend_on_seed_and_step_alone():
    whole = draw_variations(5, 7, 6)
    assert torch.equal(torch.cat([draw_variations(5, 7, 2, first) for first in (0, 2, 4)]), whole)
    assert not torch.equal(draw_variations(6, 7, 6), whole)
    share = whole[:, 1]
    assert ((whole[:, 0] >= 0.7) & (whole[:, 0] <= 1.6) & (share >= 0) & (share <= 0.5)).all()
    assert torch.equal(whole[:, 2:].sort().values, torch.arange(3.0).expand(6, 3))


def test_loader_keeps_the_order_for_any_number_of_threads():
    for workers in (1, 3):
        with BatchLoader(lambda step: (torch.tensor(step), torch.tensor(-step)), 10, workers) as loader:
            assert [int(loader.next_batch()[0]) for _ in range(8)] == list(range(10, 18))
            assert loader.seconds_waiting > 0


def test_loader_passes_errors_on():
    def fail(step):
        raise OSError("disk gone")

    with BatchLoader(fail, 0, 1) as loader, pytest.raises(OSError, match="disk gone"):
        loader.next_batch()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep.png")[0, :, 0], [0, 1, 128, 255])
