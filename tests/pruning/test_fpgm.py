"""Distances between filters, by hand and against a loop."""

import pytest
import torch
from torch import nn

from hardy.errors import InputError
from hardy.pruning.criteria.fpgm import FPGM
from hardy.pruning.units import Member, Unit, find_units


def layer(*rows):
    """A linear layer with these filters, and its unit."""
    network = nn.ModuleDict({"a": nn.Linear(len(rows[0]), len(rows), bias=False)})
    network["a"].weight.data = torch.tensor(rows, dtype=torch.float64)
    return network, [Unit("a", len(rows), (Member("a", "out", tuple((i,) for i in range(len(rows)))),))]


def test_sums_of_distances(pixel_loss):
    """A 3-4-5 triangle and the middle of its longest side."""
    network, units = layer([0.0, 4.0], [3.0, 0.0], [3.0, 4.0], [1.5, 2.0])
    scores = FPGM(network, units, pixel_loss, normalise=False).scores()["a"]
    assert scores.tolist() == pytest.approx([5 + 3 + 2.5, 5 + 4 + 2.5, 3 + 4 + 2.5, 7.5])
    relative = FPGM(network, units, pixel_loss).scores()["a"]
    torch.testing.assert_close(relative, scores / scores.mean())


def test_vectors_run_over_all_layers_of_a_unit(toy, pixel_loss):
    unit = next(unit for unit in find_units(toy) if unit.name == "stem")
    vectors = torch.cat([toy.stem.weight.flatten(1), toy.block.narrow.weight.flatten(1)], 1).detach()
    expected = [sum(float((one - other).norm()) for other in vectors) for one in vectors]
    assert {m.module for m in unit.members if m.side == "out"} >= {"stem", "block.narrow"}
    scores = FPGM(toy, [unit], pixel_loss, normalise=False).scores()["stem"]
    assert scores.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_masked_network_scores_like_the_smaller_one(pixel_loss, normalise):
    network, units = layer([0.0, 4.0], [3.0, 0.0], [3.0, 4.0], [7.0, 1.0])
    masked = FPGM(network, units, pixel_loss, normalise=normalise)
    start = FPGM(network, units, pixel_loss).scores()["a"]
    network["a"].weight.data[3] = 0
    smaller = FPGM(*layer([0.0, 4.0], [3.0, 0.0], [3.0, 4.0]), pixel_loss, normalise=False).scores()["a"]
    assert smaller.tolist() == [8.0, 9.0, 7.0]
    whole = torch.cdist(*2 * [torch.tensor([[0.0, 4], [3, 0], [3, 4], [7, 1]])]).sum()
    scale = 2 * float(whole) / 12 if normalise else 1  # mean over two others; the start's mean over 4 x 3 pairs
    torch.testing.assert_close(masked.scores()["a"][:3], smaller / scale, rtol=1e-6, atol=0)
    assert not torch.equal(masked.scores()["a"], start)


def test_the_norm_cut_goes_first(pixel_loss):
    """Of five the lowest int(5 x 0.45) = 2 by norm; the rest by distances among themselves."""
    network, units = layer([0.0, 2.0], [0.0, 1.0], [0.0, 3.0], [0.0, 4.0], [0.0, 8.0])
    scores = FPGM(network, units, pixel_loss, normalise=False, norm_cut=0.45).scores()["a"]
    assert scores.tolist() == [2 / 8, 1 / 8, 1 + 6, 1 + 5, 1 + 9]


@pytest.mark.parametrize("cut", [1.0, -0.1])
def test_the_cut_is_a_share(pixel_loss, cut):
    with pytest.raises(InputError, match="norm_cut"):
        FPGM(*layer([1.0], [2.0]), pixel_loss, norm_cut=cut)
