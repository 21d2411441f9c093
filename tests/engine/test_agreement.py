"""The share of the labelled pixels at which a student and its teacher predict the same class."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from hardy.data.label_spaces import SPACES, LabelSpace
from hardy.engine import protocol
from hardy.engine.agreement import agreements, share, values
from hardy.engine.protocol import Settings
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Data, Evaluate, RunSection
from hardy.seed import seeded
from hardy.types import Batch

CPU = torch.device("cpu")
DATA = Data(
    sources=["streets/sim"],
    unseen=["streets/night", "streets/fog"],
    datasets={"streets": {"size": [32, 64], "train": 4, "val": 2, "test": 2}},
    split="given",
    unseen_splits=["test"],
)
SETTINGS = Settings(data=DATA, evaluate=Evaluate(batch=2), run=RunSection(device="cpu", workers=0))


def says(*ids):
    """A predictor whose logits, a quarter of the labels' size, give ``ids`` image by image."""
    logits = F.one_hot(torch.tensor(ids), 3).float().view(-1, 3, 1, 1)
    return lambda images: logits[: len(images)]


def batch(labels):
    labels = torch.tensor(labels)
    return Batch(torch.rand(len(labels), 3, 8, 8), labels, torch.zeros(len(labels), dtype=torch.long))


def test_only_labelled_pixels_count_by_hand():
    first = batch([[[0, 255], [1, 1]], [[255, 255], [255, 2]], [[2, 2], [2, 2]]])
    second = batch([[[0, 0], [0, 255]]])
    assert share(says(0, 1, 2), says(0, 1, 1), [first, second], CPU) == pytest.approx((3 + 1 + 0 + 3) / (3 + 1 + 4 + 3))
    assert math.isnan(share(says(0), says(0), [batch([[[255, 255]]])], CPU)), "nothing is labelled"


def test_of_pictures_it_is_a_share_of_pictures():
    mine, theirs = (torch.eye(4)[list(ids)] for ids in ((0, 1, 2, 3), (0, 1, 3, 2)))
    found = share(lambda _: mine, lambda _: theirs, [batch([0, 1, 255, 3])], CPU)
    assert found == pytest.approx(2 / 3), "whether the label is right does not matter"


def test_means_over_domains():
    found = {"a/x": ("source-val", 0.9), "a/y": ("source-val", 0.7), "b/x": ("unseen", 0.2), "b/y": ("unseen", 0.6)}
    named = {target: value for target, metric, value in values(found) if metric == "agreement"}
    assert named == pytest.approx(
        {"a/x": 0.9, "a/y": 0.7, "b/x": 0.2, "b/y": 0.6, "intra": 0.8, "unseen": 0.4, "worst": 0.2}
    )
    assert values({"b/x": ("unseen", 0.5)}) == [(of, "agreement", 0.5) for of in ("b/x", "unseen", "worst")]


@pytest.fixture(scope="module")
def network():
    with seeded(0, "network"):
        return create("tiny", "cityscapes19", width=8).eval()


@pytest.fixture(scope="module")
def parts():
    found = protocol.split(DATA, 0)
    return [("source-val", part) for part in found.val] + [("unseen", part) for part in found.unseen]


def test_classes_are_matched_by_name(network, parts):
    """A copy whose classes stand in another order agrees everywhere; with its names in the old order it does not."""
    own = SPACES["cityscapes19"]
    turned = LabelSpace("turned", own.classes[::-1], own.colours[::-1])
    other = copy.deepcopy(network)
    with torch.no_grad():
        for value in (other.head.weight, other.head.bias):
            value.copy_(value.flip(0))
    misnamed = copy.deepcopy(other)
    other.label_space = turned
    assert agreements(network, Teacher(other), parts, SETTINGS) == {
        "streets/sim": ("source-val", 1.0),
        "streets/night": ("unseen", 1.0),
        "streets/fog": ("unseen", 1.0),
    }
    assert all(value < 0.5 for _, value in agreements(network, Teacher(misnamed), parts, SETTINGS).values())
    other.label_space = SPACES["camvid11"]
    with pytest.raises(InputError, match="lacks"):
        agreements(network, Teacher(other), parts, SETTINGS)


def test_it_predicts_as_the_evaluation_does(network, parts):
    """With a flip both are predicted flipped too, which moves the agreement of two different networks."""
    with seeded(1, "network"):
        teacher = Teacher(create("tiny", "cityscapes19", width=8).eval())
    network.train()
    plain, flipped = (
        agreements(network, teacher, parts, replace(SETTINGS, evaluate=Evaluate(batch=2, flip=flip)))
        for flip in (False, True)
    )
    assert network.training
    network.eval()
    assert plain.keys() == flipped.keys()
    assert plain != flipped
