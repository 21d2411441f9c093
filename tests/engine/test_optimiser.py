"""Which weights learn at which rate and decay, and the rate over time, by hand."""

import math

import pytest
import torch
from torch import nn

import hardy
from hardy.algorithms.erm import ERM
from hardy.engine import optimiser
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.recipe import Optim


class Mixed(nn.Module):
    """One of everything that has weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.multiplied = nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.layer = nn.LayerNorm((8, 4, 4))
        self.group = nn.GroupNorm(2, 8)
        self.act = nn.PReLU(8)
        self.single = nn.Conv2d(1, 1, 1, bias=False)
        self.head = nn.Conv2d(8, 3, 1)
        self.embedding_bias = nn.Parameter(torch.zeros(2, 2))
        self.scale = nn.Parameter(torch.ones(3))
        self.frozen = nn.Conv2d(3, 3, 1).requires_grad_(False)


@pytest.fixture
def mixed(three):
    return ERM(hardy.wrap(Mixed(), three), CrossEntropy(3))


def groups_of(algorithm, made):
    """Parameter name (less its prefix) -> its group's settings."""
    names = {id(p): name.removeprefix("network.module.") for name, p in algorithm.named_parameters()}
    return {names[id(p)]: group for group in made.param_groups for p in group["params"]}


def test_norms_biases_and_depthwise_weights_are_not_decayed(mixed):
    found = groups_of(mixed, optimiser.build(mixed, Optim(weight_decay=0.01)))
    decayed = {name for name, group in found.items() if group["weight_decay"] == 0.01}
    spared = {name for name, group in found.items() if group["weight_decay"] == 0.0}
    assert decayed == {"conv.weight", "grouped.weight", "single.weight", "head.weight"}
    assert spared == {
        "conv.bias",
        "depthwise.weight",
        "multiplied.weight",
        "norm.weight",
        "norm.bias",
        "layer.weight",
        "layer.bias",
        "group.weight",
        "group.bias",
        "act.weight",
        "head.bias",
        "embedding_bias",
        "scale",
    }


def test_frozen_weights_are_left_out_and_none_at_all_is_an_error(mixed):
    assert not [name for name in groups_of(mixed, optimiser.build(mixed, Optim())) if name.startswith("frozen")]
    mixed.requires_grad_(False)
    with pytest.raises(InputError, match="Wrapped has no trained parameter"):
        optimiser.build(mixed, Optim())


def test_every_trained_weight_is_in_exactly_one_group(mixed):
    mixed.network.module.head.weight = mixed.network.module.grouped.weight  # shared by two layers
    made = optimiser.build(mixed, Optim())
    held = [id(p) for group in made.param_groups for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in mixed.parameters() if p.requires_grad})


def test_the_encoder_learns_at_its_own_rate(mixed, monkeypatch):
    module = mixed.network.module
    monkeypatch.setattr(type(mixed.network), "encoder", lambda self: (module.conv, module.norm))
    mixed.network.pretrained = True
    made = optimiser.build(mixed, Optim(lr=0.5, encoder_rate=0.1))
    found = groups_of(mixed, made)
    slow = {name for name, group in found.items() if group["base_lr"] == 0.5 * 0.1}
    assert slow == {"conv.weight", "conv.bias", "norm.weight", "norm.bias"}
    assert len(made.param_groups) == 4
    optimiser.set_rate(made, 0.25)
    assert found["conv.weight"]["lr"] == 0.5 * 0.1 * 0.25
    assert found["head.weight"]["lr"] == 0.5 * 0.25


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_the_optimiser_is_the_one_named(mixed, name, kind):
    made = optimiser.build(mixed, Optim(name=name, momentum=0.8))
    assert type(made) is kind
    assert name != "sgd" or all(group["momentum"] == 0.8 for group in made.param_groups)


def test_one_step_of_rmsprop_by_hand(shallow):
    """Contextnet's: gradients over the root of their smoothed squares plus one, with momentum."""
    algorithm = shallow()
    weight = algorithm.network.module[0].weight
    before = weight.detach().clone()
    made = optimiser.build(algorithm, Optim(name="rmsprop", lr=0.1, momentum=0.9, weight_decay=0.0))
    for parameter in algorithm.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    made.step()
    torch.testing.assert_close(weight, before - 0.1 * 2.0 / ((0.1 * 2.0**2) ** 0.5 + 1.0))


def test_one_step_of_sgd_by_hand(shallow):
    algorithm = shallow()
    weight = algorithm.network.module[0].weight
    made = optimiser.build(algorithm, Optim(lr=0.1, momentum=0.5, weight_decay=0.2))
    before, momentum = weight.detach().clone(), torch.zeros_like(weight)
    for step in range(3):
        optimiser.set_rate(made, 1 - step / 4)
        for parameter in algorithm.parameters():
            parameter.grad = torch.full_like(parameter, step + 1.0)
        made.step()
        momentum = 0.5 * momentum + (step + 1.0 + 0.2 * before)
        before = before - 0.1 * (1 - step / 4) * momentum
        torch.testing.assert_close(weight.detach(), before, rtol=1e-6, atol=1e-7)


def test_poly_by_hand():
    optim = Optim(steps=10, schedule="poly", power=0.9)
    assert optimiser.rate(optim, 0) == 1.0
    assert optimiser.rate(optim, 5) == 0.5**0.9
    assert optimiser.rate(optim, 9) == pytest.approx(0.1**0.9, rel=1e-12)
    assert optimiser.rate(optim, 10) == 0.0
    assert optimiser.rate(optim, 11) == 0.0


def test_cosine_by_hand():
    optim = Optim(steps=12, schedule="cosine")
    assert optimiser.rate(optim, 0) == 1.0
    assert optimiser.rate(optim, 4) == pytest.approx(0.75, rel=1e-12)  # cos 60 degrees
    assert optimiser.rate(optim, 6) == pytest.approx(0.5, rel=1e-12)
    assert optimiser.rate(optim, 12) == 0.0


def test_constant_stays():
    assert {optimiser.rate(Optim(steps=5, schedule="constant"), step) for step in range(9)} == {1.0}


def test_the_warm_up_climbs_in_equal_steps_and_meets_the_schedule():
    optim = Optim(steps=20, schedule="poly", power=2.0, warm_up=3)
    assert [optimiser.rate(optim, step) for step in range(3)] == [1 / 4, 2 / 4, 3 / 4]
    assert optimiser.rate(optim, 3) == (17 / 20) ** 2
    assert optimiser.rate(Optim(steps=20, schedule="constant", warm_up=3), 3) == 1.0


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_the_rate_never_leaves_0_to_1(schedule):
    optim = Optim(steps=30, schedule=schedule, warm_up=5)
    rates = [optimiser.rate(optim, step) for step in range(31)]
    assert all(0 <= value <= 1 and math.isfinite(value) for value in rates)
    assert rates[5:] == sorted(rates[5:], reverse=True)
