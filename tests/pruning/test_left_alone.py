"""Layers that `prune.keep` names keep every weight, in modules and in networks."""

import copy
import logging

import pytest
import torch
from torch import nn

import hardy
from hardy.engine.protocol import Settings, Split
from hardy.engine.prune import prune
from hardy.engine.safeguards import DataView
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.pruning.left_alone import left_alone
from hardy.pruning.units import find_units
from hardy.sections import Prune

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def module() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
    return nn.Sequential(stem, nn.Conv2d(16, 24, 1), nn.ReLU(), nn.Conv2d(24, 32, 1), nn.Conv2d(32, 5, 1))


def cut(**prune) -> nn.Module:
    return hardy.prune(module(), IMAGES, "l2", ratio=0.3, prune={"round_to": 1, **prune}, show=False)


def test_a_layer_keeps_what_it_makes_and_what_it_takes(caplog):
    free, kept = cut(), cut(keep=["3"])
    assert set(free.hardy_plan) == {"0.0", "1", "3", "4"}
    with caplog.at_level(logging.INFO, "hardy"):
        cut(keep=["3"])
    assert "not pruned: 1: prune.keep names 3" in caplog.text
    assert {name: set(sides) for name, sides in kept.hardy_plan.items()} == {"0.0": {"out"}, "1": {"in"}}
    assert torch.equal(kept[3].weight, module()[3].weight)


def test_a_module_stands_for_all_layers_inside():
    assert "0.0" not in cut(keep=["0"]).hardy_plan
    assert set(cut(keep=["0"]).hardy_plan) == {"1", "3", "4"}


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (["0.00"], "prune.keep: Sequential has no layer '0.00'; did you mean '0.0'"),
        (["decoder"], "prune.keep: Sequential has no layer 'decoder'$"),
        (["0", "1", "3"], "nothing of Sequential can be pruned: 0.0: prune.keep names 0"),
    ],
)
def test_one_clear_line(keep, message):
    with pytest.raises(InputError, match=message):
        cut(keep=keep)


@pytest.mark.costly
@pytest.mark.slow
def test_a_network_of_hardys():
    network = create("tiny", classes="camvid11")
    units = find_units(network)
    name = units[0].name
    free, kept = left_alone(network, units, [name])
    assert kept[name] == f"prune.keep names {name}"
    assert {unit.name for unit in free} | set(kept) == {unit.name for unit in units}
    assert all(name not in {member.module for member in unit.members} for unit in free)
    small = by_engine(network, [name])
    assert small.plan
    assert name not in small.plan
    assert torch.equal(small.get_submodule(name).weight, network.get_submodule(name).weight)
    with pytest.raises(InputError, match=f"prune.keep: Tiny has no layer '{name}x'; did you mean '{name}'"):
        by_engine(network, [f"{name}x"])


def by_engine(network: Network, keep: list[str]) -> Network:
    choice = {"criterion": "l2", "schedule": "one_shot", "round_to": 1, "min_width": 2, "ratio": 0.2, "keep": keep}
    small, view = copy.deepcopy(network), DataView(Split((), (), ()), Settings())
    prune(small, Prune.model_validate(choice), view, pixel_loss=nn.functional.cross_entropy)
    return small
