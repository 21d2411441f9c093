"""V-REx by hand, where the risks are equal, and at the step where its weight jumps."""

import math
from itertools import count

import pytest
import torch

from hardy.algorithms.erm import ERM
from hardy.algorithms.vrex import VREx
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.recipe import Optim, RunSection
from hardy.types import Batch


@pytest.fixture
def network(pictures):
    """`pictures` whose first logit is the grey value x and whose others are 0: the risk of class 0 is known."""
    with torch.no_grad():
        pictures.head.weight.zero_()
        pictures.head.weight[0, 0] = 1.0
        pictures.head.bias.zero_()
    return pictures


def plain(values, domains):
    images = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    return Batch(images, torch.zeros(len(values), dtype=torch.long), torch.tensor(domains))


def risk(x):
    return math.log(math.exp(x) + 2) - x


@pytest.mark.parametrize(("done", "weight"), [(0, 0.5), (6, 0.5), (7, 10.0), (8, 10.0)])
def test_by_hand(network, loss, done, weight):
    """Two pictures of one domain, one of another: domains weigh alike, and the variance divides by two."""
    algorithm = VREx(network, loss, anneal=7, early_weight=0.5)
    algorithm.after_step(done)
    terms = algorithm(plain([0.0, 2.0, 1.0], [4, 4, 9]))
    first, second = (risk(0) + risk(2)) / 2, risk(1)
    assert list(terms) == ["classification", "variance"]
    assert terms["classification"].item() == pytest.approx((first + second) / 2, rel=1e-14)
    assert terms["variance"].item() == pytest.approx(weight * (first - second) ** 2 / 4, rel=1e-12)


def test_equal_risks_leave_erm(pictures, scenes, draw_batch, loss, total):
    for network, size in ((pictures, None), (scenes, (3, 3))):
        one = draw_batch([0, 0], size=size)
        batch = Batch(one.images.repeat(2, 1, 1, 1), torch.cat([one.labels] * 2), torch.tensor([0, 0, 1, 1]))
        terms = VREx(network, loss, weight=1e6, anneal=0)(batch)
        assert terms["variance"].item() == 0
        assert total(terms) == pytest.approx(total(ERM(network, loss)(batch)), rel=1e-14)


def test_its_gradient_is_that_of_its_value(scenes, draw_batch, loss):
    batch = draw_batch([0, 1, 2, 2], size=(2, 2))
    algorithm = VREx(scenes, loss, anneal=0)

    def value(images):
        return sum(algorithm(Batch(images, batch.labels, batch.domains)).values())

    assert torch.autograd.gradcheck(value, batch.images.requires_grad_())


def test_what_cannot_be_compared_is_refused(pictures, draw_batch, loss):
    with pytest.raises(InputError, match=r"VREx compares domains and data.sources names 1"):
        VREx(pictures, loss).check(1, 64)
    with pytest.raises(InputError, match="a batch holds images of 1"):
        VREx(pictures, loss)(draw_batch([2, 2]))
    for name in ("weight", "anneal", "early_weight"):
        with pytest.raises(InputError, match=rf"VREx\.{name}"):
            VREx(pictures, loss, **{name: -1})


# ------------------------------------------------------------------------------------------------- the step it jumps at

ANNEAL, STEPS = 3, 6


@pytest.fixture
def batches(draw_batch):
    def endless(start, rank, processes):
        yield from (draw_batch([0, 0, 1, 2], seed=step) for step in count(start))

    return endless


@pytest.fixture
def fit(pictures, loss, batches):
    """``fit(folder)``: a loop on the same weights every time."""
    begun = {name: value.clone() for name, value in pictures.state_dict().items()}

    def build(folder=None):
        pictures.load_state_dict(begun)
        algorithm = VREx(pictures, loss, anneal=ANNEAL)
        optim = Optim(name="adam", lr=0.05, steps=STEPS, weight_decay=0.0, schedule="constant")
        return Fit(algorithm, batches, optim, RunSection(device="cpu"), folder=folder)

    return build


def written_out(network, loss, batches, forget):
    """The same training with torch alone."""
    algorithm = VREx(network, loss, anneal=ANNEAL)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for step, batch in zip(range(STEPS), batches(0, 0, 1), strict=False):
        if forget and step == ANNEAL:
            optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
        optimiser.zero_grad()
        sum(algorithm(batch).values()).backward()
        optimiser.step()
        algorithm.after_step(step + 1)
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_optimiser_forgets_its_moments_where_the_weight_jumps(fit, pictures, loss, batches):
    fit().run()
    found = {name: value.clone() for name, value in pictures.state_dict().items()}
    for forget in (True, False):
        fit()  # the same weights again
        wanted = written_out(pictures, loss, batches, forget)
        agree = all(torch.allclose(found[name], value, rtol=1e-12, atol=0) for name, value in wanted.items())
        assert agree == forget


def test_every_step_is_a_place_to_stop(fit, pictures, tmp_path):
    whole = fit()
    whole.run()
    wanted = {name: value.clone() for name, value in whole.algorithm.state_dict().items()}
    assert int(wanted["steps"]) == STEPS
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        first = fit(folder)
        first.run(stop)
        first.save()
        second = fit(folder)
        assert second.resume()
        second.run()
        for name, value in second.algorithm.state_dict().items():
            assert torch.equal(value, wanted[name]), (stop, name)
