"""|dR/dz| by hand: of plain channels, and of the heads of an attention by masks that are really there."""

import math

import pytest
import torch
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network
from hardy.pruning.criteria.michel_heads import MichelHeads
from hardy.pruning.gates import gate_sites
from hardy.pruning.samples import SampleGradients
from hardy.pruning.units import Member, Unit
from hardy.types import Batch, Outputs


class Attention(Network):
    """One attention of two heads of two channels over the pixels, and the mean of its output."""

    def __init__(self):
        super().__init__(find_label_space("pacs7"))
        torch.manual_seed(0)
        self.query, self.key, self.value = (nn.Linear(3, 4) for _ in range(3))
        self.proj = nn.Linear(4, 1)
        self.mask = torch.ones(2)

    def outputs(self, images):
        tokens = images.flatten(2).transpose(1, 2)
        query, key, value = (
            layer(tokens).unflatten(2, (2, 2)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = (query @ key.transpose(-1, -2)).softmax(-1) @ value
        return Outputs(self.proj((mixed * self.mask.view(2, 1, 1)).transpose(1, 2).flatten(2)).mean((1, 2)))


HEADS = ((0, 1), (2, 3))
UNIT = Unit(
    "query",
    2,
    (*(Member(name, "out", HEADS) for name in ("query", "key", "value")), Member("proj", "in", HEADS)),
    ("proj",),
    "heads",
)


def loss(logits, labels):
    return logits.square().mean()


def batch_of(seed, domains):
    images = torch.rand(len(domains), 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.zeros(len(domains), dtype=torch.long), torch.tensor(domains))


def scored(network, batches, **options):
    criterion = MichelHeads(network, [UNIT], loss, **options)
    for batch in batches:
        network.zero_grad()
        sum(criterion.observe(batch).values()).backward()
        criterion.collect()
    return criterion.scores()["query"]


def test_the_mean_size_of_the_gradient_of_each_heads_mask():
    network = Attention()
    batches = [batch_of(0, [0, 1, 1]), batch_of(1, [0, 0, 1])]
    expected = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        network.mask = torch.ones(2, requires_grad=True)
        risks = [loss(network(batch.where(batch.domains == d).images), None) for d in range(2)]
        expected += torch.autograd.grad(torch.stack(risks).mean(), network.mask)[0].abs().double() / 2
    network.mask = torch.ones(2)
    torch.testing.assert_close(scored(network, batches, normalise=False), expected, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(scored(network, batches), expected / expected.norm(), rtol=1e-5, atol=1e-9)


def test_by_hand():
    """The value of both pixels is 1 in every channel, so a head gives 1 whatever it attends to: R = (5 - 3) ^ 2."""
    network = Attention()
    nn.init.zeros_(network.value.weight)
    nn.init.ones_(network.value.bias)
    network.proj.weight.data = torch.tensor([[1.0, 4.0, -2.0, -1.0]])
    nn.init.zeros_(network.proj.bias)
    batches = [batch_of(0, [0])]
    assert scored(network, batches, normalise=False).tolist() == pytest.approx([2 * 2 * 5, 2 * 2 * 3])
    assert scored(network, batches).tolist() == pytest.approx([20 / math.hypot(20, 12), 12 / math.hypot(20, 12)])


def test_batches_of_opposite_sign_do_not_cancel():
    network = Attention()
    one, other = batch_of(0, [0]), batch_of(0, [0])
    network.proj.weight.data.abs_()
    single = scored(network, [one], normalise=False)
    assert torch.allclose(scored(network, [one, other], normalise=False), single)
    assert (single > 0).all()


def test_images_own_gradients_at_the_input_of_a_layer():
    """Where nothing before the layer is trained, as while a network that stands still is scored."""
    network, batch = Attention().requires_grad_(False), batch_of(2, [0, 0, 0])
    network.proj.weight.requires_grad_(True)
    sites = gate_sites(network, [UNIT])
    with SampleGradients(sites, 2, 3) as samples:
        logits = network(batch.images)
    logits.square().sum().backward()
    for n in range(3):
        network.mask = torch.ones(2, requires_grad=True)
        (expected,) = torch.autograd.grad(network(batch.images[n : n + 1]).square().sum(), network.mask)
        torch.testing.assert_close(samples.rows[n], expected.double(), rtol=1e-5, atol=1e-9)
