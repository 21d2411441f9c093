"""SAR against its formulas in float64: the climb, the second selection, and the return to the source."""

import math

import pytest
import torch
from tiny_stream import OneNorm, frames, statistics
from torch import nn

from hardy.adaptation._norm_weights import learn_norms
from hardy.adaptation.sar import SAR
from hardy.errors import InputError

START = torch.tensor([[1.5, 1.0, 2.0], [0.5, 0.0, -0.2]]).double()
BOUND = 0.8 * math.log(3)


def entropies(images, learned):
    z = statistics(images, *learned)
    p = z.exp() / z.exp().sum(1, keepdim=True)
    return -(p * p.log()).sum(1)


def test_two_steps_are_those_of_the_formulas():
    rho, lr = 0.3, 0.1
    live = SAR(OneNorm().double(), lr=lr, margin=0.8, rho=rho, floor=0.0).double()
    learned, speed, mean = START.clone(), torch.zeros(2, 3).double(), None
    for images in frames(2, batch=2):
        images = images.double()
        torch.testing.assert_close(live(images), statistics(images, *learned))
        here = learned.clone().requires_grad_(True)
        first = entropies(images, here)
        reliable = first < BOUND
        (up,) = torch.autograd.grad(first[reliable].mean(), here)
        above = (learned + rho * up / up.square().sum().sqrt()).requires_grad_(True)
        second = entropies(images, above)
        again = reliable & (second < BOUND)
        assert 0 < again.sum() < reliable.sum() < 48
        loss = second[again].mean()
        (slope,) = torch.autograd.grad(loss, above)
        mean = loss.item() if mean is None else 0.9 * mean + 0.1 * loss.item()
        speed = 0.9 * speed + slope
        learned = learned - lr * (slope + 0.9 * speed)
        norm = live.network.norm.norm
        torch.testing.assert_close(torch.stack((norm.weight, norm.bias)).detach(), learned)
        assert live.mean.item() == pytest.approx(mean)


def test_below_the_floor_it_returns_to_the_source_and_keeps_its_mean():
    live = SAR(OneNorm(), lr=0.5, margin=0.8, floor=5.0)
    for images in frames(3):
        live(images)
        assert torch.equal(live.network.norm.norm.weight, OneNorm().norm.weight)
        assert live.state()["optimisers"]["norms"]["state"] == {}
        assert 0 < live.mean < 5
    free = SAR(OneNorm(), lr=0.5, margin=0.8, floor=0.0)
    free(frames(1)[0])
    assert not torch.equal(free.network.norm.norm.weight, OneNorm().norm.weight)


def test_where_nothing_is_reliable_nothing_changes():
    live = SAR(OneNorm(), lr=1.0, margin=0.0)
    live(frames(1)[0])
    assert torch.equal(live.network.norm.norm.weight, OneNorm().norm.weight)
    assert live.mean == -1


class Encoded(OneNorm):
    """Five norms in the encoder and one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*[nn.BatchNorm2d(3) for _ in range(5)])

    def encoder(self):
        return (self.stages,)


def test_the_last_quarter_of_the_encoder_is_left_out():
    """One of five, rounded down; the head's norm learns."""
    network = Encoded()
    learned = {id(value) for value in learn_norms(network, "sar", leave=0.25)}
    names = {name for name, value in network.named_parameters() if id(value) in learned}
    assert names == {
        f"{norm}.norm.{kind}" for norm in ("norm", *(f"stages.{i}" for i in range(4))) for kind in ("weight", "bias")
    }
    assert {name for name, value in network.named_parameters() if value.requires_grad} == names
    assert len(learn_norms(OneNorm(), "sar", leave=0.25)) == 2
    with pytest.raises(InputError, match=r"^adapt: sar: leave 1\.0 leaves no norm layer to learn; give"):
        SAR(OneNorm(), leave=1.0)
