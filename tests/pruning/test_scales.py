"""Scales: gammas where there are norms, factors elsewhere; the same function before, with and after the factors."""

import copy

import pytest
import torch
from torch import nn

from hardy.errors import InputError
from hardy.pruning.activations import Activations
from hardy.pruning.mask import mask
from hardy.pruning.scales import Scales
from hardy.pruning.units import Member, Unit, find_units

HEADS = Unit(
    "qkv", 2, (Member("qkv", "out", ((0, 1), (2, 3))), Member("proj", "in", ((0, 1), (2, 3)))), ("proj",), "heads"
)


class Mixer(nn.Module):
    """Two heads of width 2 that only pass through."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(3, 4).double()
        self.proj = nn.Linear(4, 3).double()

    def forward(self, tokens):
        return self.proj(self.qkv(tokens))


def test_gammas_are_the_scales(toy):
    units = {unit.name: unit for unit in find_units(toy)}
    before = set(dict(toy.named_parameters()))
    scales = Scales(toy, [units["mix"]])
    assert set(dict(toy.named_parameters())) == before
    toy.mix_norm.weight.data[3] = -0.25
    assert scales.sizes()["mix"][3] == 0.25
    weights = {"mix": torch.arange(14.0, dtype=torch.float64)}
    expected = float((weights["mix"] * toy.mix_norm.weight.detach().abs()).sum())
    penalty = scales.penalty(weights)
    assert float(penalty.detach()) == pytest.approx(expected)
    penalty.backward()
    torch.testing.assert_close(toy.mix_norm.weight.grad, weights["mix"] * toy.mix_norm.weight.detach().sign())


def test_a_tied_unit_has_the_mean_size_of_its_places(toy):
    unit = next(unit for unit in find_units(toy) if len(unit.gates) > 1)
    sizes = Scales(toy, [unit]).sizes()[unit.name]
    norms = [
        toy.get_submodule(m.module).weight.detach().abs()[[c[0] for c in m.channels]]
        for m in unit.members
        if m.module in unit.gates and m.side == "out"
    ]
    torch.testing.assert_close(sizes, torch.stack(norms).mean(0))


@pytest.mark.parametrize("separate", [True, False])
def test_factors_multiply_and_fold(toy, separate):
    toy.eval()
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    units = find_units(toy)
    reference = copy.deepcopy(toy)
    names = set(toy.state_dict())
    before = toy(images)
    scales = Scales(toy, units, separate=separate)
    assert torch.equal(toy(images), before)
    factor = scales.of(next(unit for unit in units if unit.name == "up"))[0]
    with torch.no_grad():
        factor[2] = 0.5
    reference.up.weight.data[:, 2] *= 0.5
    reference.up.bias.data[2] *= 0.5
    expected = reference(images)
    torch.testing.assert_close(toy(images), expected)
    scales.fold()
    assert set(toy.state_dict()) == names
    torch.testing.assert_close(toy(images), expected)


def test_masking_reaches_through_a_factor(toy):
    toy.eval()
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    units = find_units(toy)
    masked = copy.deepcopy(toy)
    mask(masked, units, {"up": [1], "mix": [0, 5]})
    scales = Scales(toy, units, separate=True)
    mask(toy, units, {"up": [1], "mix": [0, 5]})
    torch.testing.assert_close(toy(images), masked(images))
    scales.fold()
    torch.testing.assert_close(toy(images), masked(images))


def test_heads_get_a_factor_before_they_are_joined():
    mixer = Mixer()
    tokens = torch.randn(2, 5, 3, dtype=torch.float64)
    inner = mixer.qkv(tokens).detach()
    scales = Scales(mixer, [HEADS])
    (factor,) = scales.of(HEADS)
    with torch.no_grad():
        factor.copy_(torch.tensor([0.5, 2.0]))
    expected = mixer.proj.parametrizations.weight.original @ (inner * torch.tensor([0.5, 0.5, 2, 2])).mT
    torch.testing.assert_close(mixer(tokens), expected.mT + mixer.proj.bias)
    assert scales.sizes()["qkv"].tolist() == [0.5, 2.0]


def test_a_head_is_read_before_its_factor():
    mixer = Mixer()
    tokens = torch.randn(2, 5, 3, dtype=torch.float64)
    with Activations(mixer, [HEADS]) as activations:
        mixer(tokens)
    (seen,) = activations.of(HEADS)
    inner = mixer.qkv(tokens).detach().reshape(2, 5, 2, 2).permute(0, 2, 3, 1).flatten(2)
    torch.testing.assert_close(seen.values, inner)
    torch.testing.assert_close(seen.factor, (inner.var((0, 2), correction=0) + 1e-5).rsqrt())


def test_a_norm_is_read_before_its_scale(toy, draw_batch):
    unit = next(unit for unit in find_units(toy) if unit.name == "mix")
    toy.mix_norm.weight.data[4] = 1e-6
    with Activations(toy, [unit]) as activations:
        toy(draw_batch([0, 1]).images)
    (seen,) = activations.of(unit)
    assert seen.values.shape[:2] == (2, 14)
    spread = (seen.values * seen.factor[:, None]).var((0, 2), correction=0)
    torch.testing.assert_close(spread, torch.ones(14, dtype=torch.float64), rtol=1e-2, atol=0)


def test_a_factor_behind_a_norm_over_channels_is_masked_and_folded():
    each = tuple((channel,) for channel in range(6))
    unit = Unit("0", 6, (Member("0", "out", each), Member("1", "in", each)), ("0",), "embedding")
    network = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)).double()
    plain = copy.deepcopy(network)
    plain[0].weight.data[3] *= 0.5
    plain[0].bias.data[3] *= 0.5
    mask(plain, [unit], {"0": [1, 4]})
    scales = Scales(network, [unit], separate=True)
    with torch.no_grad():
        scales.of(unit)[0][3] = 0.5
    tokens = torch.randn(5, 6, dtype=torch.float64)
    mask(network, [unit], {"0": [1, 4]})
    torch.testing.assert_close(network(tokens), plain(tokens))
    scales.fold()
    mask(network, [unit], {"0": [1, 4]})
    torch.testing.assert_close(network(tokens), plain(tokens))
    assert type(network[0]).__name__ == "MaskedLayerNorm"


def test_no_gate():
    with pytest.raises(InputError, match="Mixer has no gates"):
        Scales(Mixer(), [Unit("qkv", 2, HEADS.members)])
