"""Predicting through windows: the same classes as evaluation, in bands that bound the memory; and where masks go."""

import platform
from mmap import PAGESIZE

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hardy.data.base import Domain
from hardy.data.datasets.folder import Folder
from hardy.data.loader import evaluation_batches
from hardy.engine import classify as module
from hardy.engine.predict import predict
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap
from hardy.ops import windows

MEBIBYTES = 40
"""Of a block that the C library gives back to the system as soon as it is freed."""


@pytest.fixture
def network():
    torch.manual_seed(0)
    return create("tiny", "camvid11").eval()


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def ids(path):
    with Image.open(path) as mask:
        return np.array(mask)


@pytest.mark.parametrize("size", [None, (40, 72)])
def test_classes_are_those_of_evaluation_through_the_same_windows(network, tmp_path, size):
    root = tmp_path / "town"
    save(root / "images" / "a.png", photo(70, 90))
    save(root / "masks" / "a.png", np.zeros((70, 90), dtype=np.uint8))
    (root / "classes.yaml").write_text("- {name: road}\n- {name: sky}\n")
    town = Folder(root)
    data = [(Domain("folder/all", town, town.index()["all"]), town.index()["all"]["all"])]
    (batch,) = evaluation_batches(data, town.label_space, resize=size)
    seen = windows.views(network, window=(32, 48))
    with torch.inference_mode():
        logits = nn.functional.interpolate(seen(batch.images), size=(70, 90), mode="bilinear", align_corners=False)
    (mask,) = predict(network, root / "images", tmp_path / "masks", size=size, window=(32, 48))
    np.testing.assert_array_equal(ids(mask), logits.argmax(1)[0].numpy())
    assert len(np.unique(ids(mask))) > 1


def test_images_of_one_size_share_a_batch(network, tmp_path):
    for seed in range(3):
        save(tmp_path / "in" / f"{seed}.png", photo(40, 50, seed))
    one, two = (predict(network, tmp_path / "in", tmp_path / f"{n}", window=(24, 24), batch=n) for n in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert (ids(first) == ids(second)).mean() > 0.999


def test_only_the_rows_that_two_rows_of_windows_share_are_kept_whole():
    images = torch.rand(1, 3, 200, 90)
    forward = nn.Conv2d(3, 5, 3, padding=1)
    seen, kept = [], set()

    def take(place):
        seen.append(images[place].shape[-2:])
        return images[place]

    rebuilt = torch.full((1, 5, 200, 90), torch.nan)
    with torch.inference_mode():
        for top, left, part in windows.tiles(forward, take, (200, 90), (16, 16), (10, 10)):
            rebuilt[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
            kept.add(part.untyped_storage().nbytes())
        together = windows.sliding(forward, images, (16, 16), (10, 10))
    assert {tuple(size) for size in seen} == {(16, 16)}
    assert kept == {5 * 16 * 16 * 4}
    assert torch.equal(rebuilt, together)


def test_overlaps_of_more_than_two_windows_are_added_up_in_their_order():
    images, forward = torch.rand(2, 3, 23, 31), nn.Conv2d(3, 4, 3, padding=1)
    window, stride = (9, 12), (4, 5)
    total, covered = torch.zeros(2, 4, 23, 31), torch.zeros(23, 31)
    with torch.inference_mode():
        for top in windows.starts(23, 9, 4):
            for left in windows.starts(31, 12, 5):
                place = (..., slice(top, top + 9), slice(left, left + 12))
                total[place] += forward(images[place])
                covered[place] += 1
        assert covered.max() == 9
        assert torch.equal(windows.sliding(forward, images, window, stride), total / covered)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_windows_take_their_memory_once(tmp_path):
    from resource import RUSAGE_SELF, getrusage

    class Hungry(nn.Module):
        def forward(self, images):
            return torch.ones(MEBIBYTES * 2**20 // 4)[:1] * images.repeat(1, 4, 1, 1)[:, :11]

    def faults(window):
        before = getrusage(RUSAGE_SELF).ru_minflt
        predict(network, photo(16, 256), tmp_path, window=window)
        return getrusage(RUSAGE_SELF).ru_minflt - before

    network = wrap(Hungry(), "camvid11", mean=(0, 0, 0), std=(1, 1, 1))
    faults((16, 64))
    few = faults((16, 128))  # 3 windows
    many = min(faults((16, 16)) for _ in range(3))  # 25; a busy system takes pages back, too
    assert many - few < 3 * MEBIBYTES * 2**20 / PAGESIZE


def test_one_class_at_a_time_gives_the_same_classes():
    torch.manual_seed(1)
    logits = torch.randn(7, 9, 11).round(decimals=1)  # with ties
    logits[3, 2, 2] = torch.nan
    larger = nn.functional.interpolate(logits[None], size=(30, 41), mode="bilinear", align_corners=False)
    assert torch.equal(module.best(logits, (30, 41))[0].long(), larger.argmax(1)[0])
    assert torch.equal(module.best(logits, (9, 11))[0].long(), logits.argmax(0))


def test_an_image_too_large_to_take_at_once_needs_windows(network, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 1999)
    line = r"image: 40x50 pixels are more than the 0 megapixels .* without windows; give a window such as 1024x1024"
    with pytest.raises(InputError, match=line):
        predict(network, photo(40, 50), tmp_path)
    assert predict(network, photo(40, 50), tmp_path, window=(32, 32))
    assert predict(network, photo(40, 50), tmp_path, size=(32, 32))


def test_a_window_below_the_least_size_is_refused(network, tmp_path):
    with pytest.raises(InputError, match=r"window \(8, 64\): give \(height, width\), each at least 16"):
        predict(network, photo(40, 50), tmp_path, window=(8, 64))


def test_a_turned_photograph_gets_an_upright_mask(network, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(20, 40)).save(tmp_path / "in" / "a.png", exif=exif)
    (mask,) = predict(network, tmp_path / "in", tmp_path / "out")
    assert ids(mask).shape == (40, 20)


# --------------------------------------------------------------------------------------------------- where masks go


def test_a_target_above_the_source(network, tmp_path, monkeypatch):
    save(tmp_path / "photos" / "a.jpg", photo(20, 20))
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in predict(network, "photos", ".")] == ["a.png"]
    assert (tmp_path / "a.png").exists()


def test_no_mask_overwrites_any_image_of_the_source(tmp_path):
    bright = wrap(nn.Conv2d(3, 11, 1), "camvid11", mean=(0, 0, 0), std=(1, 1, 1))
    save(tmp_path / "photos" / "a.png", photo(4, 4))
    save(tmp_path / "photos" / "photos" / "a.png", photo(4, 4))
    with pytest.raises(InputError, match=r"photos/photos/a\.png: its mask would overwrite .*photos/a\.png; choose"):
        predict(bright, tmp_path / "photos", tmp_path)
    save(tmp_path / "x" / "overlays" / "a.png", photo(4, 4))
    save(tmp_path / "x" / "a.png", photo(4, 4))
    with pytest.raises(InputError, match=r"overlays/a\.png: its mask would have the same name as an overlay"):
        predict(bright, tmp_path / "x", tmp_path / "y", overlay=True)
    assert not (tmp_path / "y").exists()
