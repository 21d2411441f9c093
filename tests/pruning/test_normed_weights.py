"""Scores of layers whose weights are normed or standardised, and of torch's own attention: right, or refused."""

from types import SimpleNamespace

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn
from torch.nn.utils import parametrizations

import hardy
from hardy.errors import InputError
from hardy.pruning.activations import Activations
from hardy.pruning.criteria._filters import banks_of
from hardy.pruning.gates import gate_gradients, gate_parameters, gate_sites
from hardy.pruning.samples import SampleGradients
from hardy.pruning.scales import Scales
from hardy.pruning.schedules.soft import zeroer
from hardy.pruning.units import find_units

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def normed(**options) -> nn.Module:
    torch.manual_seed(0)
    first = parametrizations.weight_norm(nn.Conv2d(3, 6, 3, padding=1), **options)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(6, 5, 1))


def encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    tokens = nn.Sequential(nn.Flatten(2), Swap(), encoder, Mean())
    return nn.Sequential(nn.Conv2d(3, 16, 4, 4), tokens, nn.Linear(16, 5))


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def test_gates_of_a_weight_norm_are_its_scales():
    network = normed().double()
    images = IMAGES.double()
    (unit,) = find_units(network, images)
    gates = torch.ones(6, dtype=torch.float64, requires_grad=True)
    hook = network[0].register_forward_hook(lambda _, __, out: out * gates.view(1, -1, 1, 1))
    (expected,) = torch.autograd.grad(network(images).sin().sum(), gates)
    hook.remove()
    sites = gate_sites(network, [unit])
    parameters = gate_parameters(sites)
    found = torch.autograd.grad(network(images).sin().sum(), parameters)
    torch.testing.assert_close(gate_gradients(sites, dict(zip(parameters, found, strict=True)), 6), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: normed(dim=1), "normalises its weights over what the gate scales"),
        (lambda: nn.Sequential(StdConv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1)), "standardises its weights"),
    ],
)
def test_gates_without_a_gradient_are_refused(build, message):
    network = build()
    units = find_units(network, IMAGES)
    with pytest.raises(InputError, match=message):
        gate_sites(network, units)
    with pytest.raises(InputError, match="normalised weights"):
        Scales(network, units)
    assert hardy.prune(network, IMAGES, "l2", prune={"round_to": 1, "min_width": 1}, show=False)[0].out_channels == 3


def test_heads_of_torchs_attention_are_scored_by_their_weights():
    network = encoder()
    unit = next(unit for unit in find_units(network, IMAGES) if unit.kind == "heads")
    (bank,) = banks_of(network, unit)
    attention = network[1][2].layers[0].self_attn
    assert bank.weight is attention.in_proj_weight
    assert bank.channels[1].tolist() == [*range(4, 8), *range(20, 24), *range(36, 40)]
    with torch.no_grad():
        attention.in_proj_weight[bank.channels[2]] = 0.0
    assert hardy.prune(network, IMAGES, "l2", prune={"kinds": ["heads"]}, ratio=0.25, show=False).hardy_plan[unit.name][
        "heads"
    ] == [0, 1, 3]


def test_taylor_reads_the_heads_of_torchs_attention_and_others_refuse():
    network = encoder()
    data = [(IMAGES, torch.tensor([0, 1, 2, 3]))]
    limits = {"kinds": ["heads"]}
    small = hardy.prune(network, IMAGES, "taylor", data=data, prune=limits, show=False)
    assert small[1][2].layers[0].self_attn.num_heads == 2
    units = [unit for unit in find_units(network, IMAGES) if unit.kind == "heads"]
    with (
        pytest.raises(InputError, match="runs without a call"),
        SampleGradients(gate_sites(network, units), 4, 4),
    ):
        network(IMAGES)
    with pytest.raises(InputError, match="go through no layer call"), Activations(network, units):
        network(IMAGES)


def test_soft_pruning_zeroes_filters_of_a_weight_norm():
    network = normed()
    work = SimpleNamespace(network=network, units=find_units(network, IMAGES))
    bias = network[0].bias.detach().clone()
    zeroer(work, {"0": [1, 4]})()
    assert network[0].weight.detach().flatten(1).abs().sum(1).eq(0).tolist() == [False, True, False, False, True, False]
    assert torch.equal(network[0].bias, bias)
