"""What the engine's tests train on: two shallow networks, images whose classes are their brightest channel, a town."""

import shutil
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hardy
from hardy.algorithms.erm import ERM
from hardy.data.label_spaces import LabelSpace
from hardy.losses.cross_entropy import CrossEntropy
from hardy.seed import seeded
from hardy.types import Batch

THREE = LabelSpace("three", ("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


@pytest.fixture
def three() -> LabelSpace:
    """Three classes."""
    return THREE


@pytest.fixture
def shallow() -> Callable[..., ERM]:
    """``shallow(norm=False, seed=0)``: ERM on two convolutions, on request with a batch norm between them."""

    def build(norm: bool = False, seed: int = 0) -> ERM:
        torch.manual_seed(seed)
        middle = nn.BatchNorm2d(6) if norm else nn.Identity()
        layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), middle, nn.GELU(), nn.Conv2d(6, 3, 1))
        return ERM(hardy.wrap(layers, THREE).train(), CrossEntropy(3))

    return build


@pytest.fixture
def colours() -> Callable[..., Callable[[int, int, int], Iterator[Batch]]]:
    """``colours(size=4)``: batches of ``size`` 8x8 images; every pixel's class is its brightest channel."""

    def build(size: int = 4) -> Callable[[int, int, int], Iterator[Batch]]:
        def batches(start: int, rank: int, processes: int) -> Iterator[Batch]:
            for step in count(start):
                with seeded(7, "colours", step):
                    images = torch.rand(size, 3, 8, 8)
                mine = slice(rank, None, processes)
                yield Batch(images[mine], images.argmax(1)[mine], (torch.arange(size) % 2)[mine])

        return batches

    return build


@pytest.fixture
def labelled(town, tmp_path):
    """The town with every pixel labelled: the mean over two halves of a batch is then the mean over the batch."""
    folder = shutil.copytree(town, tmp_path / "labelled")
    for path in folder.glob("masks/*/*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 255, 2, mask).astype(np.uint8)).save(path)
    return folder
