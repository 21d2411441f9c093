"""Two transparent networks in float64, for pictures and for scenes, and batches of several domains."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hardy.data.label_spaces import LabelSpace
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.base import Network
from hardy.types import Batch, Outputs

THREE = LabelSpace("three", ("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


class Colours(Network):
    """A linear layer on the mean colour of a picture, which is its embedding."""

    least_size = 1
    image_level = True

    def __init__(self):
        super().__init__(THREE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.head = nn.Linear(3, 3)

    def outputs(self, images):
        embedding = self.normalise(images).mean((2, 3))
        return Outputs(self.head(embedding), {"stage1": images}, embedding=embedding)


class Cells(Network):
    """A hidden layer of 5 channels on every pixel, its embedding, and a classifier on it."""

    least_size = 1

    def __init__(self):
        super().__init__(THREE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.hidden, self.head = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1)

    def outputs(self, images):
        hidden = torch.tanh(self.hidden(self.normalise(images)))
        return Outputs(self.head(hidden), {"first": images, "last": hidden}, embedding=hidden)


def draw(domains, seed=0, size=None):
    """A batch of these domains; pictures of 2x2 pixels, or with a ``size`` scenes with some ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size or (2, 2)
    images = torch.rand(len(domains), 3, height, width, dtype=torch.float64, generator=generator)
    images = images / (1 + torch.tensor(domains).view(-1, 1, 1, 1))
    labels = torch.randint(0, 3, (len(domains), *(size or ())), generator=generator)
    if size:
        labels[:, 0, 0] = 255
    return Batch(images, labels, torch.tensor(domains))


@pytest.fixture
def pictures() -> Network:
    """`Colours` in float64."""
    torch.manual_seed(0)
    return Colours().double()


@pytest.fixture
def scenes() -> Network:
    """`Cells` in float64."""
    torch.manual_seed(0)
    return Cells().double()


@pytest.fixture
def draw_batch() -> Callable[..., Batch]:
    """``draw_batch(domains, seed=0, size=None)``: see `draw`."""
    return draw


@pytest.fixture
def loss() -> CrossEntropy:
    """Cross-entropy of three classes."""
    return CrossEntropy(3)


@pytest.fixture
def total() -> Callable[..., float]:
    """``total(terms)``: what is minimised."""
    return lambda terms: sum(terms.values()).item()
