"""PACS as the papers use it: what is trained on, what selects, what judges, and what happens to a picture."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from hardy.data.label_spaces import SPACES
from hardy.data.transforms import training
from hardy.engine import protocol
from hardy.engine.protocol import Settings
from hardy.recipe import Data, Evaluate, Optim, RunSection

COUNTS = {"art_painting": 21, "cartoon": 35, "photo": 14, "sketch": 28}
SIDE = 40


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """A small PACS: each picture is a ramp from left to right, so that a crop shows where it came from."""
    root = tmp_path_factory.mktemp("pacs")
    ramp = np.tile(np.arange(SIDE, dtype=np.uint8) * 6, (SIDE, 1))
    for domain, count in COUNTS.items():
        for number in range(count):
            folder = root / "kfold" / domain / SPACES["pacs7"].classes[number % 7]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.stack([ramp] * 3, -1)).save(folder / f"{number:03}.png")
    return root


@pytest.fixture
def data(pacs):
    def build(**options):
        sources = ("pacs/art_painting", "pacs/cartoon", "pacs/photo")
        values = {"sources": sources, "unseen": ("pacs/sketch",), "datasets": {"pacs": {"root": str(pacs)}}}
        return Data(**values | {"size": (32, 32), "crop": (32, 32)} | options)

    return build


def test_sources_are_split_nine_to_one_and_the_unseen_domain_is_whole(data):
    parts = protocol.split(data(), seed=0)
    for (domain, train), (same, val) in zip(parts.train, parts.val, strict=True):
        count = COUNTS[domain.name.split("/")[1]]
        assert domain is same
        assert len(val) == round(count / 10)
        assert len(train) + len(val) == len({*train, *val}) == count
    ((unseen, items),) = parts.unseen
    assert unseen.name == "pacs/sketch"
    assert len(set(items)) == COUNTS["sketch"]
    again, other = (protocol.split(data(), seed).val for seed in (0, 1))
    held = [[items for _, items in val] for val in (parts.val, again, other)]
    assert held[0] == held[1] != held[2]


def test_every_batch_has_as_many_pictures_of_each_domain(data):
    parts = protocol.split(data(), seed=0)
    stream = protocol.training(
        parts.train, SPACES["pacs7"], Settings(data(), Optim(batch=96), run=RunSection(workers=0))
    )(0, 0, 1)
    for _, batch in zip(range(2), stream, strict=False):
        assert torch.bincount(batch.domains).tolist() == [32, 32, 32]
        assert batch.images.shape == (96, 3, 32, 32)


def test_training_crops_come_from_the_whole_picture_and_measured_ones_are_resized(data):
    """A crop of all of a picture has the ramp's ends; one that was first resized to 4 pixels would have lost them."""
    values = data(size=(4, 4), scale=(1.0, 1.0), flip=0.0, photometric=0.0, crop=(SIDE, SIDE))
    parts = protocol.split(values, seed=0)
    stream = protocol.training(
        parts.train, SPACES["pacs7"], Settings(values, Optim(batch=30), run=RunSection(workers=0))
    )(0, 0, 1)
    images = next(stream).images
    whole = torch.arange(SIDE) * 6 / 255
    assert any(torch.allclose(image[0, 0], whole, atol=1e-6) for image in images)
    shown = []

    class Network(torch.nn.Module):
        image_level, label_space = True, SPACES["pacs7"]

        def forward(self, images):
            shown.append(images.shape)
            return torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.long), 7).float()

    pairs = [("source-val", part) for part in parts.val] + [("unseen", part) for part in parts.unseen]
    table = protocol.measure(Network(), pairs, Settings(values, evaluate=Evaluate(batch=64), run=RunSection(workers=0)))
    assert {tuple(shape[1:]) for shape in shown} == {(3, 4, 4)}
    assert {row.domain: row.images for row in table.rows}["pacs/sketch"] == COUNTS["sketch"]
    assert table.unseen == 4 / 28
    classes = [int(domain.dataset.read_label(item)) for domain, items in parts.val for item in items]
    assert table.intra == pytest.approx(classes.count(0) / len(classes), abs=1e-15)


def test_pictures_are_augmented_as_in_domainbed():
    made = training((96, 96), image_level=True)
    crop, flip = made._geometry.transforms
    jitter, grey = made._colours.transforms
    assert isinstance(crop, v2.RandomResizedCrop)
    assert (crop.size, tuple(crop.scale), tuple(crop.ratio)) == ((96, 96), (0.7, 1.0), (3 / 4, 4 / 3))
    assert isinstance(flip, v2.RandomHorizontalFlip)
    assert flip.p == 0.5
    ranges = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
    assert [pytest.approx(tuple(found)) for found in ranges] == [(0.7, 1.3)] * 3 + [(-0.3, 0.3)]
    assert isinstance(grey, v2.RandomGrayscale)
    assert grey.p == pytest.approx(0.1)
