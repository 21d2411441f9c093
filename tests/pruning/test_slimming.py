"""|gamma| and its sum, by hand."""

import pytest
import torch
from torch import nn

from hardy.errors import InputError
from hardy.pruning.criteria.slimming import Slimming
from hardy.pruning.units import Member, Unit, find_units

EACH = ((0,), (1,))


def made():
    """Two branches added up, each with a norm, and a convolution without one."""
    network = nn.ModuleDict(
        {"a": nn.Conv2d(3, 2, 1), "na": nn.BatchNorm2d(2), "nb": nn.BatchNorm2d(2), "c": nn.Conv2d(2, 2, 1)}
    )
    network["na"].weight.data = torch.tensor([-3.0, 0.5])
    network["nb"].weight.data = torch.tensor([1.0, -0.1])
    tied = Unit("a", 2, tuple(Member(name, "out", EACH) for name in ("a", "na", "nb")), ("na", "nb"))
    return network, tied, Unit("c", 2, (Member("c", "out", EACH),), ("c",))


def test_the_mean_size_over_the_norms_of_a_unit(pixel_loss):
    network, tied, _ = made()
    scores = Slimming(network, [tied], pixel_loss).scores()["a"]
    torch.testing.assert_close(scores, torch.tensor([2.0, 0.3], dtype=torch.float64))


def test_the_penalty_is_the_sum_of_sizes_and_its_gradient_their_signs(pixel_loss):
    network, tied, alone = made()
    penalty = Slimming(network, [tied, alone], pixel_loss).penalty()
    assert penalty.item() == pytest.approx(4.6)
    penalty.backward()
    assert network["na"].weight.grad.tolist() == [-1.0, 1.0]
    assert network["nb"].weight.grad.tolist() == [1.0, -1.0]
    assert network["c"].weight.grad is None


def test_what_has_no_norm_goes_last(toy, pixel_loss):
    units = find_units(toy)
    toy.mix_norm.weight.data.mul_(1e6)
    scores = Slimming(toy, units, pixel_loss).scores()
    assert min(scores["up"]) > max(max(scores[unit.name]) for unit in units if unit.name not in ("up", "side"))


def test_only_prunable_channels_are_shrunk(toy, pixel_loss):
    """Only the norms where gates sit: in front of a depthwise convolution's norm a scale would be undone."""
    Slimming(toy, find_units(toy), pixel_loss).penalty().backward()
    shrunk = {name for name, value in toy.named_parameters() if value.grad is not None and value.grad.any()}
    assert {"mix_norm.weight", "block.norm2.weight", "block.norm3.weight"} <= shrunk
    assert "block.norm1.weight" not in shrunk
    assert all("norm" in name or "early" in name for name in shrunk)


def test_a_network_without_norms_is_refused(pixel_loss):
    network, _, alone = made()
    with pytest.raises(
        InputError, match=r"slimming needs norm layers with a scale .* ModuleDict has none; use l2 or taylor"
    ):
        Slimming(network, [alone], pixel_loss)
