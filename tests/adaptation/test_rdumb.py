"""RDumb is ETA between two returns to the source."""

import torch
from tiny_stream import OneNorm, frames

from hardy.adaptation.eta import ETA
from hardy.adaptation.rdumb import RDumb

OPTIONS = {"lr": 0.2, "margin": 0.8, "redundancy": 0.8}


def test_it_is_eta_and_every_third_batch_finds_the_source_network():
    live, eta = RDumb(OneNorm(), every=3, **OPTIONS), ETA(OneNorm(), **OPTIONS)
    for index, images in enumerate(frames(9, batch=2)):
        if index % 3 == 0:
            eta.reset()
        assert torch.equal(live(images), eta(images))
        assert torch.equal(live.mean, eta.mean)
    assert not torch.equal(live.network.norm.norm.weight, OneNorm().norm.weight)
    assert live.step == 9


def test_the_paper_returns_every_1000_batches():
    assert RDumb(OneNorm()).every == 1000
