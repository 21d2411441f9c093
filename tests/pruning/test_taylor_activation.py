"""|mean of activation times gradient| by hand, and against activations multiplied where nothing is in place."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network
from hardy.pruning.criteria.taylor_activation import TaylorActivation
from hardy.pruning.units import Member, Unit, find_units
from hardy.types import Batch, Outputs

UNIT = Unit("a", 2, (Member("a", "out", ((0,), (1,))),), ("a",))


class Two(Network):
    """Two channels that copy the first two colours, an in-place ReLU, then a weighted sum."""

    def __init__(self):
        super().__init__(find_label_space("pacs7"))
        self.a = nn.Conv2d(3, 2, 1, bias=False)
        self.a.weight.data = torch.eye(2, 3).view(2, 3, 1, 1)

    def outputs(self, images):
        x = F.relu(self.a(images), inplace=True)
        return Outputs((x * torch.tensor([3.0, 1.0]).view(1, 2, 1, 1)).sum((1, 2, 3)))


def mean_logit(logits, labels):
    return logits.mean()


def scored(network, units, loss, batch, **options):
    criterion = TaylorActivation(network, units, loss, **options)
    network.zero_grad()
    sum(criterion.observe(batch).values()).backward()
    criterion.collect()
    return criterion.scores()


def test_by_hand():
    """Two images of one domain, so R is half the sum; per image the means of 3 relu(a) and of relu(b)."""
    red = [[[2.0, -4.0]], [[-1.0, 6.0]]]
    green = [[[1.0, 1.0]], [[-5.0, -3.0]]]
    images = torch.stack([torch.tensor(red), torch.tensor(green), torch.zeros(2, 1, 2)], 1)
    batch = Batch(images, torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    plain = scored(Two(), [UNIT], mean_logit, batch, normalise=False)["a"]
    assert plain.tolist() == [0.5 * (3 * 2 / 2 + 3 * 6 / 2), 0.5 * (2 / 2 + 0)]
    normalised = scored(Two(), [UNIT], mean_logit, batch)["a"]
    assert normalised.tolist() == pytest.approx([6 / math.hypot(6, 0.5), 0.5 / math.hypot(6, 0.5)])


@pytest.mark.parametrize("training", [True, False])
def test_images_do_not_cancel_but_the_places_of_a_unit_add_up(toy, batch, pixel_loss, training):
    """Against a gate that is really there for each image, channel and place."""
    toy.train(training)
    units = [unit for unit in find_units(toy) if unit.name in ("stem", "mix", "up")]
    found = scored(toy, units, pixel_loss, batch, normalise=False)
    for unit in units:
        total = 0
        for member in unit.gated:
            means = mean_products(toy, pixel_loss, batch, member.module)
            total = total + means[:, [channel for (channel,) in member.channels]]
        torch.testing.assert_close(found[unit.name], total.abs().sum(0), rtol=1e-9, atol=1e-15)
    assert max(len(unit.gated) for unit in units) > 1


def mean_products(toy, pixel_loss, batch, name):
    """(B, C) mean over pixels of dR/dy y at the output of ``name``."""
    order = torch.argsort(batch.domains, stable=True)
    gates, sizes = [], []

    def multiply(module, inputs, output):
        gates.append(torch.ones(*output.shape[:2], 1, 1, dtype=output.dtype, requires_grad=True))
        sizes.append(output.shape[2] * output.shape[3])
        return output * gates[0]

    hook = toy.get_submodule(name).register_forward_hook(multiply)
    outputs = toy.outputs(batch.images[order])
    hook.remove()
    labels, domains = batch.labels[order], batch.domains[order]
    risks = [sum(toy.losses(outputs.where(domains == d), labels[domains == d], pixel_loss).values()) for d in range(3)]
    (gradient,) = torch.autograd.grad(sum(risks) / 3, gates)
    return gradient.flatten(1) / sizes[0]
