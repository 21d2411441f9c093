"""The means over some classes that papers quote by name: SYNTHIA's 16 and 13."""

import math

import pytest
import torch

from hardy.data.label_spaces import MEANS, SPACES
from hardy.engine.evaluate import build_table

CITY = SPACES["cityscapes19"]


def counts(hits_misses):
    """Counts with an IoU of hits / (hits + misses) for each (class, hits, misses); misses fall to no class."""
    made = torch.zeros(20, 20, dtype=torch.int64)
    for name, hits, misses in hits_misses:
        made[CITY.index(name), CITY.index(name)] = hits
        made[CITY.index(name), 19] = misses
    return made


def test_which_classes_they_are():
    assert [CITY.index(name) for name in MEANS["miou16"]] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]
    assert [CITY.index(name) for name in MEANS["miou13"]] == [0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]


def test_by_hand():
    every = [(name, 1, 3) for name in CITY.classes]  # IoU 1/4
    every[CITY.index("truck")] = ("truck", 0, 5)  # in 19 classes only
    every[CITY.index("wall")] = ("wall", 3, 0)  # in 19 and 16
    every[CITY.index("sky")] = ("sky", 1, 1)  # in all three
    made = build_table([("a/b", "unseen", counts(every), 1)], CITY.classes)
    assert made.rows[0].scores.miou == pytest.approx((16 / 4 + 0 + 1 + 1 / 2) / 19, abs=1e-15)
    means = made.means(made.rows[0])
    assert list(means) == ["miou16", "miou13"]
    assert means["miou16"] == pytest.approx((14 / 4 + 1 + 1 / 2) / 16, abs=1e-15)
    assert means["miou13"] == pytest.approx((12 / 4 + 1 / 2) / 13, abs=1e-15)


def test_classes_that_occur_nowhere_do_not_count():
    made = build_table([("a/b", "unseen", counts([("road", 1, 1), ("sky", 1, 0), ("wall", 1, 3)]), 1)], CITY.classes)
    means = made.means(made.rows[0])
    assert means["miou16"] == pytest.approx((1 / 2 + 1 + 1 / 4) / 3, abs=1e-15)
    assert means["miou13"] == pytest.approx((1 / 2 + 1) / 2, abs=1e-15)
    only = build_table([("a/b", "unseen", counts([("truck", 1, 0)]), 1)], CITY.classes)
    assert all(math.isnan(value) for value in only.means(only.rows[0]).values())


def test_spaces_without_these_classes_and_pictures_have_none():
    camvid = build_table([("a/b", "unseen", torch.eye(12, dtype=torch.int64), 1)], SPACES["camvid11"].classes)
    assert camvid.means(camvid.rows[0]) == {}
    pictures = build_table([("a/b", "unseen", counts([]), 1)], CITY.classes, image_level=True)
    assert pictures.means(pictures.rows[0]) == {}
