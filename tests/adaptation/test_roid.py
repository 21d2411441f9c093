"""ROID against its formulas in float64."""

import math

import pytest
import torch
from tiny_stream import OneNorm, frames, statistics

from hardy.adaptation.roid import ROID, _likelihood_ratio, _scaled
from hardy.ops.views import draw_views, jittered
from hardy.seed import seeded

START = torch.tensor([[1.5, 1.0, 2.0], [0.5, 0.0, -0.2]]).double()


def rows(z):
    """(N, K) softmax of each pixel."""
    z = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    return z.exp() / z.exp().sum(1, keepdim=True)


def weights_of(p, mean):
    diverse = torch.tensor([1 - float(each @ mean) / float(each.norm() * mean.norm()) for each in p]).double()
    certain = (p * p.log()).sum(1)
    diverse = (diverse - diverse.min()) / (diverse.max() - diverse.min())
    certain = (certain - certain.min()) / (certain.max() - certain.min())
    weights = torch.exp(3 * diverse * certain)
    weights[diverse < diverse.mean()] = 0
    return weights


@pytest.mark.parametrize("consistency", [False, True])
def test_two_steps_are_those_of_the_formulas(consistency):
    lr = 0.2
    live = ROID(OneNorm().double(), lr=lr, consistency=consistency).double()
    live.seed = 3
    learned, speed, mean = START.clone(), torch.zeros(2, 3).double(), torch.full((3,), 1 / 3).double()
    for step, images in enumerate(frames(2, batch=2)):
        images = images.double()
        predicted = live(images)
        here = learned.clone().requires_grad_(True)
        p = rows(statistics(images, *here))
        weights = weights_of(p.detach(), mean)
        assert 0 < (weights == 0).sum() < 48
        clipped = torch.where(p > 0.99, torch.full_like(p, 0.99), p)
        loss = (weights * -(clipped * torch.log(clipped / (1 - clipped) + 1e-5)).sum(1)).sum() / 48
        if consistency:
            with seeded(3, "adapt", step):
                (view,), other = draw_views(1, scales=(1.0,)), jittered(images)
            z = statistics(other.flip(-1) if view.flip else other, *here)
            q = rows(z.flip(-1) if view.flip else z)
            loss = loss - (weights * ((p * q.log()).sum(1) + (q * p.log()).sum(1)) / 2).sum() / 48
        (slope,) = torch.autograd.grad(loss, here)
        batch = p.detach().mean(0)
        mean = 0.9 * mean + 0.1 * batch
        smooth = (1 / 3) / batch.max()
        product = p.detach() * (batch + smooth) / (1 + 3 * smooth)
        torch.testing.assert_close(rows(predicted), product / product.sum(1, keepdim=True))
        speed = 0.9 * speed + slope
        learned = 0.99 * (learned - lr * (slope + 0.9 * speed)) + 0.01 * START
        norm = live.network.norm.norm
        torch.testing.assert_close(torch.stack((norm.weight, norm.bias)).detach(), learned)
        torch.testing.assert_close(live.mean, mean)


def test_the_prior_of_few_samples_is_smoothed_more():
    """One image-level sample with p = (0.7, 0.2, 0.1): e = 1 / 0.7, so that the prior is (b + e) / (1 + 3 e)."""
    live = ROID(OneNorm())
    p = torch.tensor([[0.7, 0.2, 0.1]])
    smooth = 1 / 0.7
    product = p * torch.tensor([(b + smooth) / (1 + 3 * smooth) for b in (0.7, 0.2, 0.1)])
    torch.testing.assert_close(live._corrected(p.log()).softmax(1), product / product.sum())
    plain = ROID(OneNorm(), prior=False)
    assert torch.equal(plain._corrected(p.log()), p.log())


def test_equal_values_are_scaled_to_1():
    assert _scaled(torch.tensor([2.0])).tolist() == [1]
    assert _scaled(torch.tensor([2.0, 4.0, 3.0])).tolist() == [0, 1, 0.5]


def test_the_likelihood_ratio_is_clipped_where_it_would_explode():
    sure = torch.tensor([[30.0, 0.0]])
    wanted = -(0.99 * math.log(99 + 1e-5) + 0.0)
    assert float(_likelihood_ratio(sure, 0.99)) == pytest.approx(wanted, rel=1e-4)


def test_infer_changes_nothing():
    live = ROID(OneNorm(), lr=0.1)
    live(frames(1)[0])
    before = {name: value.clone() for name, value in live.state()["tensors"].items()}
    first = live.infer(frames(2)[1])
    assert torch.equal(live.infer(frames(2)[1]), first)
    assert all(torch.equal(value, before[name]) for name, value in live.state()["tensors"].items())
