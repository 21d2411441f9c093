"""``min_width`` and ``round_to`` count channels, also where these go in groups."""

import logging

import pytest
import torch
from torch import nn

import hardy
from hardy.errors import InputError
from hardy.pruning.remove import remove
from hardy.pruning.select import Limits, select, target
from hardy.pruning.shapes import Layers, widths_left
from hardy.pruning.units import Member, Unit, find_units, survey

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def normed(groups: int = 8, width: int = 64) -> nn.Module:
    layers = nn.Conv2d(3, width, 3, padding=1), nn.GroupNorm(groups, width), nn.ReLU()
    return nn.Sequential(*layers, nn.Conv2d(width, 5, 1))


def grouped(groups: int = 8, width: int = 64) -> nn.Module:
    layers = nn.Conv2d(3, width, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, padding=1, groups=groups), nn.ReLU()
    return nn.Sequential(*layers, nn.Conv2d(2 * width, 5, 1))


@pytest.mark.parametrize("build", [normed, grouped])
def test_half_of_a_network_of_groups_goes_at_the_usual_limits(build):
    small = hardy.prune(build(), example=IMAGES, criterion="l2", ratio=0.5, show=False)
    assert small[0].out_channels == 32
    assert small(IMAGES).shape == (2, 5, 16, 16)


@pytest.mark.parametrize(
    ("each", "limits", "floor", "step"),
    [
        ((8, 8), Limits(), 1, 1),
        ((8, 8), Limits(min_width=20, round_to=16), 4, 2),
        ((4, 12), Limits(min_width=8, round_to=8), 2, 2),
        ((3, 3), Limits(min_width=8, round_to=8), 8, 8),
        ((1, 49), Limits(min_width=8, round_to=8), 8, 8),
        ((2, 1), Limits(min_width=8, round_to=4), 8, 4),
        ((8, 8), Limits(min_width=1, round_to=1), 1, 1),
    ],
)
def test_limits_by_hand(each, limits, floor, step):
    members = tuple(
        Member(name, side, tuple(tuple(range(c * n, (c + 1) * n)) for c in range(16)))
        for name, side, n in zip("ab", ("out", "in"), each, strict=True)
    )
    unit = Unit("a", 16, members)
    assert (limits.floor(unit), limits.step(unit)) == (floor, step)
    gone = len(select({"a": torch.arange(16.0)}, [unit], 16, limits=limits)["a"])
    assert 16 - gone == floor
    assert all((16 - gone) * n % limits.round_to == 0 for n in each)


def test_what_the_limits_keep_is_named(caplog):
    network = nn.Sequential(grouped(2, 16)[:4], nn.Conv2d(32, 48, 1), nn.Conv2d(48, 5, 1))
    with caplog.at_level(logging.WARNING, "hardy"):
        hardy.prune(network, example=IMAGES, criterion="l2", ratio=0.3, prune={"min_width": 16}, show=False)
    assert "not pruned: 0.0: has 16 channels in groups of 8: min_width 16 and round_to 8 keep all" in caplog.text
    with pytest.raises(InputError, match="cannot be reached"):
        target(find_units(network, IMAGES), 0.9, Limits(min_width=16))


def test_heads_are_counted_as_heads():
    unit = Unit("a", 4, (Member("a", "out", tuple(tuple(range(16 * c, 16 * c + 16)) for c in range(4))),), kind="heads")
    assert Limits(min_width=64, round_to=32, min_heads=2).floor(unit) == 2
    assert Limits(min_heads=4).unprunable([unit]) == {"a": "has 4 heads: min_heads 4 keeps all"}


def test_the_work_of_a_convolution_that_loses_a_place_in_every_group():
    shuffled = nn.Sequential(nn.Conv2d(12, 16, 1, groups=2), nn.ChannelShuffle(2), nn.Conv2d(16, 12, 1, groups=2))
    network = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), shuffled, nn.Conv2d(12, 5, 1))
    units = survey(network, IMAGES).units
    layers = Layers(network, units, (16, 16))
    dead = {unit.name: [0] for unit in units}
    predicted = layers.at(widths_left(units, dead))
    remove(network, units, dead)
    assert (network[2][0].groups, network[2][0].in_channels, network[2][0].out_channels) == (2, 10, 12)
    assert predicted == [layer.shape for layer in Layers(network, (), (16, 16)).layers]
