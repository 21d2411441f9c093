"""Code written for former names still runs: networks, datasets, methods and imports that say `labels`."""

import sys

import numpy as np
import pytest
import torch

import hardy
from hardy.data.base import Dataset
from hardy.data.label_spaces import SPACES, find_label_space
from hardy.networks.building.teacher import Teacher

NETWORK = '''"""One convolution."""
from torch import nn
from hardy.networks.base import Network
from hardy.types import Outputs

class Old(Network):
    def __init__(self, labels, *, width: int = 2):
        super().__init__(labels)
        self.head = nn.Conv2d(3, len(self.labels), 1)

    def outputs(self, images):
        return Outputs(self.head(self.normalise(images)))
'''


class Dots(Dataset):
    labels = SPACES["camvid11"]

    def index(self):
        return {"all": {"train": (0,)}}

    def read(self, item):
        return np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)


class Named(Dots):
    def __init__(self, name):
        self.labels = SPACES[name]


def test_a_networks_labels_are_its_label_space():
    network = hardy.create("tiny", "camvid11", width=8)
    with pytest.warns(DeprecationWarning, match=r"^Network\.labels is now called label_space$"):
        assert network.labels is network.label_space
    with pytest.warns(DeprecationWarning, match=r"^Teacher\.labels is now called label_space$"):
        assert Teacher(network).labels == network.label_space
    with pytest.warns(DeprecationWarning, match="label_space"):
        network.labels = SPACES["idd7"]
    assert network.label_space is SPACES["idd7"]


def test_a_constructor_that_asks_for_labels_gets_the_label_space(tmp_path, monkeypatch):
    (tmp_path / "old_network.py").write_text(NETWORK, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(DeprecationWarning, match="label_space"):
        network = hardy.create("old_network:Old", "idd7")
    assert network.label_space is SPACES["idd7"]
    hardy.save(network, tmp_path / "run")
    with pytest.warns(DeprecationWarning, match="label_space"):
        again = hardy.load(tmp_path / "run", trust=["old_network"])
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(images), network.eval()(images))
    del sys.modules["old_network"]


def test_a_dataset_may_set_labels():
    assert Dots().label_space is SPACES["camvid11"]
    assert Dots.label_space is SPACES["camvid11"]
    with pytest.warns(DeprecationWarning, match="label_space"):
        dataset = Named("pacs7")
    assert dataset.label_space is SPACES["pacs7"]


def test_the_former_module_has_the_former_function():
    from hardy.data import labels

    assert labels.label_space is find_label_space
    assert labels.SPACES is SPACES
