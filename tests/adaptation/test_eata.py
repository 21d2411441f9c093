"""EATA: the Fisher information by its formula, its penalty, and what happens without source images."""

import pytest
import torch
from tiny_stream import OneNorm, frames, statistics

import hardy
from hardy.adaptation.eata import EATA
from hardy.adaptation.eta import ETA
from hardy.errors import InputError

OPTIONS = {"lr": 0.05, "margin": 0.8, "redundancy": 0.8}


def fisher(batches):
    """By ``d CE / d z = (p - onehot) / n`` with the argmax of the source network in batch statistics."""
    weight, bias = torch.tensor([1.5, 1.0, 2.0]).double(), torch.tensor([0.5, 0.0, -0.2]).double()
    total = torch.zeros(2, 3).double()
    for images in batches:
        z = statistics(images.double(), weight, bias)
        p = z.exp() / z.exp().sum(1, keepdim=True)
        picked = (z == z.amax(1, keepdim=True)).double()
        by_logit = (p - picked) / (len(z) * z.shape[2] * z.shape[3])
        normed = statistics(images.double(), torch.ones(3).double(), torch.zeros(3).double())
        total += torch.stack(((by_logit * normed).sum((0, 2, 3)), by_logit.sum((0, 2, 3)))) ** 2
    return total / len(batches)


def weights(live):
    return torch.stack((live.network.norm.norm.weight, live.network.norm.norm.bias)).detach()


def test_the_fisher_information_is_the_mean_squared_gradient_of_each_batch():
    batches = [*frames(2, batch=2), *frames(1, size=(3, 5))]
    live = EATA(OneNorm().double(), [images.double() for images in batches])
    torch.testing.assert_close(torch.stack(list(live.fisher)), fisher(batches))
    one_by_one = EATA(OneNorm().double(), torch.cat(frames(3)).double())
    torch.testing.assert_close(torch.stack(list(one_by_one.fisher)), fisher(frames(3)))


def test_the_penalty_adds_its_gradient_to_that_of_eta():
    """At the source it has none; in the second step it is ``2 beta F (theta - theta0)``, after a first step of both."""
    source = [images.double() for images in frames(3)]
    live = EATA(OneNorm().double(), source, penalty=300.0, **OPTIONS).double()
    eta = ETA(OneNorm().double(), **OPTIONS).double()
    first, second = [images.double() for images in frames(2, batch=2)]
    assert torch.equal(live(first), eta(first))
    start = torch.stack(list(live.source))
    moved = weights(live) - start
    live(second)
    eta(second)
    wanted = -0.05 * 1.9 * 2 * 300 * fisher(frames(3)) * moved
    assert wanted.abs().max() > 1e-4
    torch.testing.assert_close(weights(live) - weights(eta), wanted)


def test_without_a_penalty_it_is_eta():
    live, eta = EATA(OneNorm(), frames(1), penalty=0.0, **OPTIONS), ETA(OneNorm(), **OPTIONS)
    assert all(torch.equal(live(images), eta(images)) for images in frames(4, batch=2))


def test_without_source_images_one_line_names_eta():
    with pytest.raises(
        InputError,
        match=r"^adapt: eata is not source-free: .*data\.sources, or give source_images=\.\.\. in Python; eta learns",
    ):
        hardy.adapt(OneNorm(), "eata")
    with pytest.raises(InputError, match=r"^adapt: eata got no images of the source domain, .* or use eta$"):
        hardy.adapt(OneNorm(), "eata", source_images=[])
    live = hardy.adapt(OneNorm(), "eata", source_images=frames(2), lr=0.1)
    assert live(frames(1)[0]).shape == (1, 3, 4, 6)
    assert hardy.adapt(OneNorm(), "tent", source_images=frames(2)).step == 0
