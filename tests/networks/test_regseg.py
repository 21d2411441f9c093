"""RegSeg's sizes in both forms, its strides, and how far it sees."""

import pytest
import torch
from repeats import without_repeats

from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from surgery import halved

AT_STRIDE_16 = (320 * 9 * 16 + 320 * 320 + 256 * 320 + 320 * 128) * (64 * 128 - 32 * 64) / 1e9
"""GMACs that the paper's network has more, behind the stride of the last block."""
WIDENING = [(32, 48), (48, 128), (128, 256), (256, 320)]
WIDER = sum((2 * outputs + 1) * (outputs - inputs) // 4 for inputs, outputs in WIDENING)
"""Parameters that it has less: squeeze and excitation is a quarter of the inputs wide."""


@pytest.mark.costly
def test_size_of_the_public_implementation() -> None:
    network = create("regseg", "cityscapes19", variant="strided")
    assert parameters(network) == 3_367_132
    assert gmacs(network, (1024, 2048)) == pytest.approx(36.686, rel=1e-3)


@pytest.mark.costly
def test_size_of_the_papers_network() -> None:
    network = create("regseg", "cityscapes19")
    assert parameters(network) == 3_367_132 - WIDER + 19  # and the classifier's bias
    assert gmacs(network, (1024, 2048)) == pytest.approx(36.686 + AT_STRIDE_16, rel=1e-3)


@pytest.mark.parametrize(("variant", "coarsest"), [("paper", (4, 8)), ("strided", (2, 4))])
def test_features_and_their_strides(variant: str, coarsest: tuple[int, int]) -> None:
    outputs = create("regseg", "cityscapes19", variant=variant).eval().outputs(torch.rand(2, 3, 64, 128))
    assert {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()} == {
        "stage1": (48, 16, 32),
        "stage2": (128, 8, 16),
        "stage3": (320, *coarsest),
        "fused": (64, 16, 32),
        "logits": (19, 16, 32),
    }


@pytest.mark.parametrize("variant", ["paper", "strided"])
@pytest.mark.parametrize("size", [(32, 32), (161, 259)])
def test_one_image_of_any_size_can_be_trained_on(variant: str, size: tuple[int, int]) -> None:
    network = create("regseg", "camvid11", variant=variant)
    assert network(torch.rand(1, 3, *size)).shape == (1, 11, *size)


def test_dilations_stand_in_the_papers_order() -> None:
    stage = create("regseg", "camvid11").stages[2]
    found = [tuple(layer.dilation[0] for layer in block.filters) for block in stage]
    assert found == [(1,), (1,), (1, 2)] + [(1, 4)] * 4 + [(1, 14)] * 7


@pytest.mark.costly
def test_every_layer_can_be_pruned() -> None:
    network = without_repeats(create("regseg", "camvid11"))
    before = parameters(network)
    assert halved(network) == 1.0
    assert parameters(network) < 0.4 * before
