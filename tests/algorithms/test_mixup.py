"""Mixup against values by hand and at the ends of its shares."""

import math

import numpy as np
import pytest
import torch

from hardy.algorithms.erm import ERM
from hardy.algorithms.mixup import Mixup
from hardy.errors import InputError
from hardy.types import Batch, Outputs


@pytest.fixture
def share(monkeypatch):
    """``share(value)``: from now on every pair is blended with this share."""

    def fix(value):
        def sample(self, shape):
            return torch.full(shape, value, dtype=torch.float64)

        monkeypatch.setattr(torch.distributions.Beta, "sample", sample)

    return fix


@pytest.fixture
def seen(pictures, monkeypatch):
    """The values that the network was shown, a list for each call; its pictures have one value."""
    shown, outputs = [], pictures.outputs

    def record(images) -> Outputs:
        shown.append(images[:, 0, 0, 0].tolist())
        return outputs(images)

    monkeypatch.setattr(pictures, "outputs", record)
    return shown


def plain(values, domains, labels=None):
    """Pictures of one pixel and one grey value each."""
    images = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    return Batch(images, torch.tensor(labels or [0] * len(values)), torch.tensor(domains))


def test_by_hand(pictures, loss, share):
    """Logits are the grey value in the label's own place: x = 1/4 and 3/4 of 0 and 1, classes 0 and 1."""
    share(0.25)
    with torch.no_grad():
        pictures.head.weight.zero_()
        pictures.head.weight[0, 0] = 1.0
        pictures.head.bias.zero_()
    found = Mixup(pictures, loss)(plain([0.0, 1.0], [0, 1], [0, 1]))

    def pair(x, first, second):
        log_sum = math.log(math.exp(x) + 2)
        losses = {0: log_sum - x, 1: log_sum}
        return 0.25 * losses[first] + 0.75 * losses[second]

    assert list(found) == ["classification"]
    assert found["classification"].item() == pytest.approx((pair(0.75, 0, 1) + pair(0.25, 1, 0)) / 2, rel=1e-14)


def test_a_share_of_one_is_erm_on_every_domain_alone(pictures, scenes, draw_batch, loss, share):
    share(1.0)
    for network, size in ((pictures, None), (scenes, (3, 4))):
        batch = draw_batch([0, 1, 2, 2, 1, 0], size=size)
        alone = [sum(ERM(network, loss)(batch.where(batch.domains == d)).values()) for d in range(3)]
        found = sum(Mixup(network, loss)(batch).values())
        assert found.item() == pytest.approx(sum(alone).item() / 3, rel=1e-14)


def test_domains_follow_each_other_in_one_random_cycle(pictures, loss, share, seen):
    share(0.25)
    algorithm = Mixup(pictures, loss)
    values = {0: 0.0, 3: 1.0, 5: 10.0, 7: 100.0}
    cycles = set()
    for seed in range(40):
        torch.manual_seed(seed)
        algorithm(plain(list(values.values()), list(values)))
        pairs = {
            (a, b)
            for x in seen[-1]
            for a, one in values.items()
            for b, two in values.items()
            if a != b and 0.25 * one + 0.75 * two == x
        }
        follows = dict(pairs)
        assert len(pairs) == len(follows) == 4
        walk = [0]
        while len(walk) < 4:
            walk.append(follows[walk[-1]])
        assert set(walk) == set(values), "one cycle through all"
        cycles.add(tuple(walk))
    assert len(cycles) == 6, "every order of the other three"


def test_a_pair_is_as_long_as_its_shorter_domain(pictures, loss, share, seen):
    share(0.5)
    Mixup(pictures, loss)(plain([0.0, 2.0, 4.0, 10.0], [0, 0, 0, 1]))
    assert seen == [[5.0, 5.0]]


def test_each_pixel_has_the_losses_of_both_its_labels(scenes, loss, share):
    share(0.5)
    images = torch.rand(1, 3, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    labels = torch.tensor([[[0, 255, 1]], [[2, 2, 255]]])
    found = Mixup(scenes, loss)(Batch(images, labels, torch.tensor([0, 1])))
    losses = -torch.log_softmax(scenes(images[:1]), 1)[0, :, 0]
    wanted = ((losses[0, 0] + losses[1, 2]) / 2 + (losses[2, 0] + losses[2, 1]) / 2) / 2
    assert found["segmentation"].item() == pytest.approx(wanted.item(), rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_have_the_moments_of_their_beta_distribution(pictures, loss, seen, alpha):
    """Blends of 0 and 1 are the shares or what they lack; the distribution is symmetric."""
    algorithm = Mixup(pictures, loss, alpha=alpha)
    torch.manual_seed(0)
    for _ in range(600):
        algorithm(plain([0.0, 1.0], [0, 1]))
    shares = np.array([x[0] for x in seen])
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_pairs_draw_shares_of_their_own(pictures, loss, seen):
    torch.manual_seed(0)
    Mixup(pictures, loss)(plain([0.0, 1.0], [0, 1]))
    first, second = seen[-1]
    assert first + second != pytest.approx(1.0, abs=1e-6)
    assert first != pytest.approx(second, abs=1e-6)


def test_what_cannot_be_mixed_is_refused(pictures, draw_batch, loss):
    with pytest.raises(InputError, match=r"Mixup compares domains and data.sources names 1"):
        Mixup(pictures, loss).check(1, 64)
    with pytest.raises(
        InputError, match=r"optim.batch: Mixup compares 2 domains, but one part of the batch on one process has 1"
    ):
        Mixup(pictures, loss).check(3, 1)
    with pytest.raises(InputError, match="a batch holds images of 1"):
        Mixup(pictures, loss)(draw_batch([2, 2]))
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"Mixup.alpha"):
            Mixup(pictures, loss, alpha=alpha)
