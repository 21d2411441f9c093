"""Euclidean norms of filters, by hand."""

import math

import torch
from torch import nn

from hardy.pruning.criteria.l2 import L2
from hardy.pruning.units import Member, Unit, find_units


def test_the_norm_over_all_filters_of_a_channel(pixel_loss):
    network = nn.ModuleDict({"a": nn.Conv2d(3, 2, 1), "b": nn.ConvTranspose2d(3, 2, 1)})
    with torch.no_grad():
        network["a"].weight.copy_(torch.tensor([[4.0, 0, 0], [1, -1, 1]]).view(2, 3, 1, 1))
        network["b"].weight.copy_(torch.tensor([[2.0, 0], [-4, 0], [0, 0]]).view(3, 2, 1, 1))
    each = ((0,), (1,))
    unit = Unit("a", 2, (Member("a", "out", each), Member("b", "out", each)))
    plain = L2(network, [unit], pixel_loss, normalise=False).scores()["a"]
    torch.testing.assert_close(plain, torch.tensor([6.0, math.sqrt(3)], dtype=torch.float64))
    torch.testing.assert_close(L2(network, [unit], pixel_loss).scores()["a"], plain / plain.mean())


def test_a_channel_of_several_filters_counts_all(pixel_loss):
    """As behind a flattening, where one channel of the map is several inputs of a layer, and several rows of it."""
    network = nn.ModuleDict({"a": nn.Linear(1, 4)})
    with torch.no_grad():
        network["a"].weight.copy_(torch.tensor([[3.0], [1.0], [4.0], [2.0]]))
    unit = Unit("a", 2, (Member("a", "out", ((0, 2), (1, 3))),))
    scores = L2(network, [unit], pixel_loss, normalise=False).scores()["a"]
    torch.testing.assert_close(scores, torch.tensor([5.0, math.sqrt(5)], dtype=torch.float64))


def test_nothing_but_zeros_is_zero(toy, pixel_loss):
    for parameter in toy.parameters():
        nn.init.zeros_(parameter)
    assert all(float(score.sum()) == 0 for score in L2(toy, find_units(toy), pixel_loss).scores().values())
