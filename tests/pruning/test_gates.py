"""Gate gradients without gates, against gates that are really there, and against finite differences."""

from contextlib import contextmanager

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network
from hardy.pruning.gates import (
    by_unit,
    gate_gradients,
    gate_parameters,
    gate_sites,
    samples_interact,
)
from hardy.pruning.samples import SampleGradients
from hardy.pruning.units import find_units
from hardy.types import Outputs


@contextmanager
def real_gates(network, units, value=None):
    """Multiply what every gate place puts out by its unit's gate; yields the gates, of ones, by unit."""
    gates, hooks = {}, []
    for unit in units:
        gates[unit.name] = z = torch.ones(unit.size, dtype=torch.float64, requires_grad=True)
        for member in unit.members:
            if member.side != "out" or member.module not in unit.gates:
                continue
            module = network.get_submodule(member.module)
            target = torch.tensor([c for channels in member.channels for c in channels])
            source = torch.tensor([g for g, channels in enumerate(member.channels) for _ in channels])

            def multiply(module, inputs, output, z=z, target=target, source=source):
                whole = torch.ones(output.shape[1], dtype=output.dtype).index_put((target,), z[source])
                return output * whole.view(1, -1, *[1] * (output.ndim - 2))

            hooks.append(module.register_forward_hook(multiply))
    yield gates
    for hook in hooks:
        hook.remove()


def loss_of(network, batch, pixel_loss):
    return sum(network.losses(network.outputs(batch.images), batch.labels, pixel_loss).values())


def without_gates(network, units, loss):
    sites = gate_sites(network, units)
    parameters = gate_parameters(sites)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    total = gate_gradients(sites, dict(zip(parameters, found, strict=True)), sum(unit.size for unit in units))
    return by_unit(total, units)


@pytest.mark.parametrize("training", [True, False])
def test_equal_to_inserted_gates(toy, batch, pixel_loss, training):
    toy.train(training)
    units = find_units(toy)
    with real_gates(toy, units) as gates:
        expected = torch.autograd.grad(loss_of(toy, batch, pixel_loss), list(gates.values()))
    ours = without_gates(toy, units, loss_of(toy, batch, pixel_loss))
    for unit, value in zip(units, expected, strict=True):
        assert value.abs().max() > 1e-4, unit.name
        torch.testing.assert_close(ours[unit.name], value, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
def test_equal_to_finite_differences(toy, batch, pixel_loss, training):
    toy.train(training)
    units = find_units(toy)
    ours = without_gates(toy, units, loss_of(toy, batch, pixel_loss))
    with real_gates(toy, units) as gates, torch.no_grad():
        for name, z in gates.items():
            for channel in (0, len(z) - 1):
                ends = []
                for step in (1e-6, -1e-6):
                    z[channel] = 1 + step
                    ends.append(float(loss_of(toy, batch, pixel_loss)))
                    z[channel] = 1
                assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(ours[name][channel]), rel=1e-5, abs=1e-8)


def test_a_gate_before_batch_statistics_would_say_nothing(toy, batch, pixel_loss):
    """The trap: a norm undoes what multiplies its input. So the places are behind the last norm."""
    toy.train()
    gate = torch.ones(24, dtype=torch.float64, requires_grad=True)
    units = find_units(toy)
    for name, least, most in [("block.expand", 0, 1e-3), ("block.norm1", 0, 1e-3), ("block.norm2", 1, 1)]:
        hook = toy.get_submodule(name).register_forward_hook(lambda m, i, out: out * gate.view(1, -1, 1, 1))
        (found,) = torch.autograd.grad(loss_of(toy, batch, pixel_loss), gate)
        hook.remove()
        ours = without_gates(toy, units, loss_of(toy, batch, pixel_loss))["block.expand"]
        assert least * (1 - 1e-9) <= float(found.norm() / ours.norm()) <= most * (1 + 1e-9), name


class Fused(Network):
    """Norms with their activation inside, one that does not vanish with its input; in-place; a linear head."""

    least_size = 8

    def __init__(self):
        super().__init__(find_label_space("pacs7"))
        self.a, self.n = nn.Conv2d(3, 8, 3, stride=2), BatchNormAct2d(8, act_layer=nn.SiLU, inplace=True)
        self.b, self.m = nn.Conv2d(8, 9, 3), BatchNormAct2d(9, act_layer=nn.ReLU, inplace=True)
        self.c, self.relu = nn.Conv2d(9, 10, 1), nn.ReLU(inplace=True)
        self.hidden, self.head = nn.Linear(10, 11), nn.Linear(11, 7)

    def outputs(self, images):
        x = self.m(self.b(self.n(self.a(self.normalise(images)))))
        x = self.relu(self.c(x)).mean((2, 3))
        return Outputs(self.head(self.relu(self.hidden(x))))


def test_samples_own_gradients(toy, draw_batch, pixel_loss, randomised):
    torch.manual_seed(1)
    fused = Fused().double()
    randomised(fused)
    for network in (toy.eval(), fused.eval()):
        units = find_units(network)
        count = sum(unit.size for unit in units)
        batch = draw_batch([0, 1, 2, 1])
        labels = batch.labels if network is toy else torch.tensor([0, 3, 6, 1])
        weights = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
        assert not samples_interact(network)
        expected = torch.zeros(count, dtype=torch.float64)
        for n in range(4):
            alone = pixel_loss(network(batch.images[n : n + 1]), labels[n : n + 1])
            mine = without_gates(network, units, alone)
            expected += weights[n] * torch.cat([mine[unit.name] for unit in units])
        with SampleGradients(gate_sites(network, units), count, 4) as samples:
            logits = network(batch.images)
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())
        sum(pixel_loss(logits[n : n + 1], labels[n : n + 1]) for n in range(4)).backward()
        torch.testing.assert_close(weights @ samples.rows, expected, rtol=1e-10, atol=1e-14)


def test_samples_interact_by_batch_statistics_only():
    assert samples_interact(nn.Sequential(nn.BatchNorm2d(3)))
    assert not samples_interact(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).eval())
    assert samples_interact(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)).eval())
    assert not samples_interact(nn.Sequential(nn.GroupNorm(1, 3), nn.LayerNorm(3)))


def test_no_gradient_counts_as_zero(toy):
    units = find_units(toy)
    total = gate_gradients(gate_sites(toy, units), {}, 71)
    assert torch.equal(total, torch.zeros(71, dtype=torch.float64))
    assert F.relu(total).sum() == 0
