"""BiSeNetV2's sizes, strides and boosters."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from hardy.registry import LOSSES
from surgery import halved

BOOSTERS = [(16, 4), (32, 8), (64, 16), (128, 32)]
MORE = sum(
    (9 * channels * 128) * 2048 * 1024 / stride**2
    + (9 * 128 * stride**2 + stride**2 * 19) * 2048 * 1024 * 4 / stride**2
    for channels, stride in BOOSTERS
)
"""Multiply-accumulates of the boosters by their weights: one convolution at the stride, two at half of it."""

TABLE = [
    ({}, False, (512, 1024), 3_358_627, 24.603),
    ({}, False, (1024, 2048), 3_358_627, 98.413),
    ({"aux": True}, False, (1024, 2048), 5_231_487, 98.413),
    ({"aux": True}, True, (1024, 2048), 5_231_487, 98.413 + MORE / 1e9),
]


@pytest.mark.parametrize(("options", "training", "size", "count", "cost"), TABLE)
def test_size(options: dict[str, Any], training: bool, size: tuple[int, int], count: int, cost: float) -> None:
    network = create("bisenetv2", "cityscapes19", **options)
    assert parameters(network) == count
    assert gmacs(network, size, training=training) == pytest.approx(cost, rel=1e-3)


def test_features_and_boosters_and_their_strides() -> None:
    outputs = create("bisenetv2", "cityscapes19", aux=True).outputs(torch.rand(2, 3, 64, 128))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stage1": (16, 16, 32),
        "stage2": (32, 8, 16),
        "stage3": (64, 4, 8),
        "stage4": (128, 2, 4),
        "detail": (128, 8, 16),
        "context": (128, 2, 4),
        "fused": (128, 8, 16),
        "logits": (19, 8, 16),
    }
    boosted = {name: tuple(value.shape) for name, value in outputs.extras.items()}
    assert boosted == {f"aux_stage{n}": (2, 19, 2 ** (6 - n), 2 ** (7 - n)) for n in (1, 2, 3, 4)}


def test_boosters_weigh_as_much_as_the_head() -> None:
    network = create("bisenetv2", "camvid11", aux=True)
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    labels = torch.randint(0, 11, (2, 64, 96))
    terms = network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 11}))
    assert len(terms) == 5
    resized = F.interpolate(outputs.extras["aux_stage3"], (64, 96), mode="bilinear", align_corners=False)
    assert terms["aux_stage3"].item() == pytest.approx(F.cross_entropy(resized, labels).item(), rel=1e-5)


@pytest.mark.costly
@pytest.mark.parametrize("size", [(32, 32), (161, 259)])
def test_one_image_of_any_size_can_be_trained_on(size: tuple[int, int]) -> None:
    network = create("bisenetv2", "camvid11", aux=True)
    assert network(torch.rand(1, 3, *size)).shape == (1, 11, *size)


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"BiSeNetV2\.dropout"):
        create("bisenetv2", "camvid11", dropout=2.0)


@pytest.mark.exhaustive
def test_every_layer_can_be_pruned() -> None:
    network = create("bisenetv2", "camvid11")
    before = parameters(network)
    assert halved(network) == 1.0
    assert parameters(network) < 0.3 * before
