"""Any module seen as a network: its inputs, its outputs and its names stay its own."""

import copy

import pytest
import torch
from torch import nn

from hardy.errors import InputError
from hardy.networks.building.adapted import Adapted
from hardy.pruning.units import find_units, survey

EXAMPLE = torch.rand(1, 7, 12, 20, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Seven channels in; logits at half size and a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(7, 16, 3, 2, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        y = self.stem(x).relu()
        return {"aux": y.mean((2, 3)), "out": self.head(y)}


def test_it_takes_and_gives_what_the_module_does():
    module = Two().train()
    network = Adapted(module, EXAMPLE)
    assert network.training
    assert network.module is module
    expected = nn.functional.interpolate(module(EXAMPLE)["out"], (12, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(EXAMPLE), expected)
    assert [tuple(one.shape) for one in network.read(EXAMPLE)] == [(1, 16), (1, 4, 6, 10)]


def test_its_example_is_the_one_given_as_often_as_needed():
    network = Adapted(Two(), EXAMPLE)
    assert torch.equal(network.example(count=1), EXAMPLE)
    assert torch.equal(network.example(count=3), torch.cat([EXAMPLE] * 3))
    assert torch.equal(copy.deepcopy(network).example(count=1), EXAMPLE)


def test_units_are_those_of_the_module_under_the_networks_names():
    module = nn.Sequential(nn.Conv2d(7, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1))
    network = Adapted(module, EXAMPLE)
    bare, adapted = survey(module, EXAMPLE), survey(network)
    assert [network.known_as(unit.name) for unit in adapted.units] == [unit.name for unit in bare.units] == ["0"]
    assert adapted.units[0].gates == ("module.1",)
    assert adapted.blocked == bare.blocked == {"3": "reaches the network's output"}
    assert [type(network.get_submodule(m.module)) for m in adapted.units[0].members[:1]] == [nn.Conv2d]
    assert find_units(network) == list(adapted.units)


def test_a_module_without_logits_is_refused_where_they_are_needed():
    network = Adapted(nn.Identity(), EXAMPLE)
    network.module.forward = lambda x: {"text": "none"}
    assert network.read(EXAMPLE) == []
    with pytest.raises(InputError, match=r"a module that is scored on data must return logits: .* returned dict"):
        network(EXAMPLE)
