"""(w dR/dw)^2 by hand."""

import pytest
import torch
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network
from hardy.pruning.criteria.taylor_weight import TaylorWeight
from hardy.pruning.risk import domain_risks
from hardy.pruning.units import Member, Unit, find_units
from hardy.types import Batch, Outputs

UNIT = Unit("a", 2, (Member("a", "out", ((0,), (1,))),), ("a",))


class Sum(Network):
    """The weighted sum of the channels of one linear layer; its loss is the mean of its output."""

    def __init__(self):
        super().__init__(find_label_space("pacs7"))
        self.a = nn.Linear(3, 2, bias=True)
        self.a.weight.data = torch.tensor([[1.0, -2.0, 0.5], [3.0, 1.0, 1.0]])

    def outputs(self, images):
        return Outputs(self.a(images.mean((2, 3))) @ torch.tensor([2.0, -1.0]))


def mean_logit(logits, labels):
    return logits.mean()


def batch_of(*colours):
    images = torch.tensor(colours).view(-1, 3, 1, 1)
    return Batch(images, torch.zeros(len(images), dtype=torch.long), torch.zeros(len(images), dtype=torch.long))


def step(criterion, batch, scale=1.0):
    criterion.network.zero_grad()
    (scale * sum(criterion.observe(batch).values())).backward()
    criterion.collect()


@pytest.mark.parametrize("scale", [1.0, 64.0])
def test_squares_of_weight_times_gradient(scale):
    """dR/dw = 2 x for the first filter and -x for the second, x the mean colour of a batch; then two batches' mean."""
    scored = TaylorWeight(Sum(), [UNIT], mean_logit)
    step(scored, batch_of([0.0, 1.0, 1.0], [1.0, 1.0, 1.0]), scale)  # x = (0.5, 1, 1)
    first = [(1 * 1.0) ** 2 + (2 * 2.0) ** 2 + (0.5 * 2.0) ** 2, (3 * 0.5) ** 2 + 1 + 1]
    assert scored.scores()["a"].tolist() == pytest.approx(first)
    step(scored, batch_of([0.0, 0.0, 1.0]), scale)
    second = [(0.5 * 2) ** 2, 1.0]
    assert scored.scores()["a"].tolist() == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)])


def test_all_layers_of_a_unit_count(toy, batch, pixel_loss):
    units = find_units(toy)
    scored = TaylorWeight(toy, units, pixel_loss)
    step(scored, batch)
    toy.zero_grad()
    domain_risks(toy, batch, pixel_loss)[0].mean().backward()
    products = [(m.weight * m.weight.grad).square().flatten(1).sum(1) for m in (toy.stem, toy.block.narrow)]
    torch.testing.assert_close(scored.scores()["stem"], sum(products).detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(
        scored.scores()["up"], (toy.up.weight * toy.up.weight.grad).square().sum((0, 2, 3)).detach()
    )


def test_frozen_weights_are_scored_and_stay_frozen():
    network, trained = Sum(), Sum()
    network.a.weight.requires_grad_(False)
    scored, expected = TaylorWeight(network, [UNIT], mean_logit), TaylorWeight(trained, [UNIT], mean_logit)
    for each in (scored, expected):
        step(each, batch_of([0.5, 1.0, 0.25]))
    assert torch.equal(scored.scores()["a"], expected.scores()["a"])
    assert not network.a.weight.requires_grad
    assert network.a.weight.grad is None
    scored.observe(batch_of([0.5, 1.0, 0.25]))
    scored.reset()
    assert not network.a.weight.requires_grad
