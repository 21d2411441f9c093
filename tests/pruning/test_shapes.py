"""Shapes of narrower networks, and their multiply-accumulates, against networks that were really cut."""

import copy
import random

import pytest
import torch
from repeats import without_repeats
from torch import nn

import hardy
from hardy.ops import cost
from hardy.pruning.remove import remove
from hardy.pruning.select import Limits
from hardy.pruning.shapes import Layers, Shape, at_floors, dense_widths, widths_left
from hardy.pruning.units import find_units

NETWORKS = {
    "fast_scnn": {"width": 0.5},
    "swiftnet": {},
    "encoder_decoder": {"encoder": "resnet18", "decoder": "deeplabv3plus"},
    "segformer": {},
    "topformer": {},
    "bisenetv2": {},
}
ALIKE = ("swiftnet", "encoder_decoder", "segformer", "bisenetv2")
"""Convolutions as in Fast-SCNN or the test of complete groups, and attention as in TopFormer."""


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.exhaustive] * (n in ALIKE)) for n in NETWORKS])
def test_predicted_gmacs_are_those_of_the_network_that_was_cut(name):
    network = without_repeats(hardy.create(name, classes="camvid11", **NETWORKS[name])).eval()
    units, size = find_units(network), (64, 96)
    layers = Layers(network, units, size)
    assert layers.gmacs(dense_widths(units)) == pytest.approx(cost.gmacs(network, size), rel=1e-9)
    draw = random.Random(name)
    dead = {unit.name: sorted(draw.sample(range(unit.size), draw.randrange(unit.size))) for unit in units}
    small = copy.deepcopy(network)
    remove(small, units, dead)
    assert layers.gmacs(widths_left(units, dead)) == pytest.approx(cost.gmacs(small, size), rel=1e-6)
    assert layers.at(widths_left(units, dead)) == [layer.shape for layer in Layers(small, (), size).layers]


def test_couplings_of_every_kind(toy):
    toy = toy.float().eval()
    units = find_units(toy)
    layers = Layers(toy, units, (16, 16))
    names = [layer.name for layer in layers.layers]
    dead = {"stem": [0, 1, 2], "side": [4], "mix": [0, 13]}
    shapes = dict(zip(names, layers.at(widths_left(units, dead)), strict=True))
    assert (shapes["stem"].inputs, shapes["stem"].outputs) == (3, 9)
    assert (shapes["mix"].inputs, shapes["mix"].outputs) == (9 + 9, 12)  # the concatenation of side and stem
    assert (shapes["up"].inputs, shapes["up"].outputs) == (12, 9)
    assert shapes["block.filter"].depthwise
    assert shapes["block.filter"].groups == 24
    assert "aux" not in names
    floors = widths_left(units, at_floors(units, Limits(min_width=5, round_to=4)))
    assert floors["stem"] == 8
    assert floors["up"] == 8


@pytest.mark.parametrize(
    "grouped",
    [
        nn.Conv2d(8, 24, 3, padding=1, groups=8),  # three outputs of each input, as in BiSeNetV2
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.Conv2d(8, 12, 3, padding=1, groups=4),
    ],
)
def test_a_layer_that_loses_complete_groups(grouped):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), grouped, nn.ReLU(), nn.Conv2d(grouped.out_channels, 5, 1)).eval()
    units = find_units(network, torch.rand(1, 3, 8, 12))
    layers, small = Layers(network, units, (8, 12)), copy.deepcopy(network)
    (unit,) = (unit for unit in units if any(member.module == "1" for member in unit.members))
    remove(small, units, {unit.name: [1]})
    assert small[1].groups == grouped.groups - 1
    left = widths_left(units, {unit.name: [1]})
    assert layers.at(left) == [layer.shape for layer in Layers(small, (), (8, 12)).layers]
    assert layers.gmacs(left) == pytest.approx(cost.gmacs(small, (8, 12)), rel=1e-9)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(6, 4, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(6, 6, (3, 5), padding=(1, 2), groups=6),
        nn.Conv2d(6, 4, 3, padding="same", groups=2),
        nn.Conv2d(6, 4, 3, padding="valid"),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
    ],
)
def test_a_shape_knows_its_output_and_its_work(module):
    layers = Layers(nn.Sequential(nn.Conv2d(3, 6, 1), module), (), (9, 12))
    shape = layers.layers[1].shape
    out = module(torch.zeros(1, 6, 9, 12))
    assert shape.out_size == tuple(out.shape[-2:])
    whole = cost.gmacs(nn.Sequential(nn.Conv2d(3, 6, 1), module), (9, 12))
    assert layers.layers[0].shape.macs == 9 * 12 * 3 * 6
    assert layers.layers[0].shape.macs + shape.macs == round(whole * 1e9)


def test_work_by_hand():
    assert Shape("convolution", 4, 8, 6, 10, (3, 3), (2, 2), (1, 1)).macs == 3 * 5 * 4 * 8 * 9
    assert Shape("convolution", 8, 8, 6, 10, (3, 3), padding=(1, 1), groups=8).narrowed(5, 5).macs == 6 * 10 * 5 * 9
    assert Shape("transposed", 4, 8, 6, 10, (2, 2), (2, 2)).macs == 6 * 10 * 4 * 8 * 4
    assert Shape("linear", 4, 8, 50, 1).macs == 50 * 4 * 8
