"""Sizes of the published implementations: parameters exactly, GMACs within 0.1 %, at 1024x2048 with 19 classes."""

from typing import Any

import pytest
from torch import nn

from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters

TABLE = [
    ("fast_scnn", {}, False, 1_138_051, 6.708),
    ("fast_scnn", {}, True, 1_138_051, 6.708),
    ("fast_scnn", {"ffm_dilation": 4}, False, 1_138_051, 6.708),
    ("fast_scnn", {"aux": True}, False, 1_157_174, 6.708),
    ("fast_scnn", {"aux": True}, True, 1_157_174, 7.332),
    ("swiftnet", {}, False, 11_797_071, 103.566),
    ("swiftnet", {}, True, 11_797_071, 103.566),
]


@pytest.mark.parametrize(("name", "options", "training", "count", "cost"), TABLE)
def test_size(name: str, options: dict[str, Any], training: bool, count: int, cost: float) -> None:
    network = create(name, "cityscapes19", **options)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048), training=training) == pytest.approx(cost, rel=1e-3)


def test_fast_scnn_has_the_papers_convolution_weights() -> None:
    network = create("fast_scnn", "cityscapes19")
    counted = sum(parameters(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d))
    assert counted == 1_114_371


def test_tiny_is_tiny() -> None:
    network = create("tiny", "cityscapes19")
    assert 30_000 < parameters(network) < 60_000
    assert gmacs(network, (64, 128)) < 0.02
