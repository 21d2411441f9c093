"""ETA against its formulas, pixel by pixel, in float64."""

import math

import pytest
import torch
from tiny_stream import Grey, OneNorm, frames, statistics

from hardy.adaptation._reliable import reliable_loss
from hardy.adaptation.eta import ETA
from hardy.errors import InputError


def kept_pixels(z, mean, margin, redundancy):
    """The entropies and softmaxes of the pixels kept, by the formulas of the docstring."""
    found = []
    for image in z:
        for row in range(z.shape[2]):
            for column in range(z.shape[3]):
                p = torch.exp(image[:, row, column]) / torch.exp(image[:, row, column]).sum()
                entropy = -(p * torch.log(p)).sum()
                cosine = 0 if mean is None else (p.detach() @ mean) / (p.detach().norm() * mean.norm())
                if entropy.item() < margin * math.log(3) and abs(cosine) < redundancy:
                    found.append((entropy, p.detach()))
    return found


def loss_of(kept, margin):
    bound = margin * math.log(3)
    return sum(math.exp(bound - entropy.item()) * entropy for entropy, _ in kept) / len(kept)


def test_two_steps_are_those_of_the_formulas():
    margin, redundancy, lr = 0.6, 0.7, 0.2
    live = ETA(OneNorm().double(), lr=lr, margin=margin, redundancy=redundancy).double()
    learned = torch.tensor([[1.5, 1.0, 2.0], [0.5, 0.0, -0.2]]).double()
    speed, mean = torch.zeros(2, 3).double(), None
    for images in frames(2, batch=2):
        learned.requires_grad_(True)
        z = statistics(images.double(), *learned)
        torch.testing.assert_close(live(images.double()), z.detach())
        kept = kept_pixels(z, mean, margin, redundancy)
        assert 0 < len(kept) < 48
        (slope,) = torch.autograd.grad(loss_of(kept, margin), learned)
        new = torch.stack([p for _, p in kept]).mean(0)
        mean = new if mean is None else 0.9 * mean + 0.1 * new
        speed = 0.9 * speed + slope
        learned = learned.detach() - lr * (slope + 0.9 * speed)
        norm = live.network.norm.norm
        torch.testing.assert_close(torch.stack((norm.weight, norm.bias)).detach(), learned)
        torch.testing.assert_close(live.mean, mean)


def test_where_nothing_is_kept_nothing_changes():
    live = ETA(OneNorm(), lr=1.0, margin=0.0)
    before = live.state()
    live(frames(1)[0])
    after = live.state()
    assert all(
        torch.equal(value, after["tensors"][name]) for name, value in before["tensors"].items() if name != "step"
    )
    assert after["optimisers"]["norms"]["state"] == {}


def test_the_loss_of_two_samples_by_hand():
    """Probabilities 0.9, 0.1 and 0.5, 0.5: entropies 0.3251 and 0.6931, of which the first is below 0.8 log 2."""
    mean = torch.zeros(2)
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    loss = reliable_loss(logits, mean, 0.8, 0.05)
    assert float(loss) == pytest.approx(math.exp(0.8 * 0.6931472 - 0.3250830) * 0.3250830, rel=1e-5)
    assert mean.tolist() == pytest.approx([0.9, 0.1])
    assert reliable_loss(logits, mean, 0.8, 0.05) is None
    other = torch.tensor([[0.001, 0.999]]).log()  # its cosine with the mean is 0.1115
    assert reliable_loss(other, mean, 0.8, 0.11) is None
    assert reliable_loss(other, mean, 0.8, 0.12) is not None
    assert mean.tolist() == pytest.approx([0.8101, 0.1899])


def test_networks_without_norms_and_options_below_0_are_refused():
    with pytest.raises(InputError, match=r"^adapt: eta trains the weights"):
        ETA(Grey())
    with pytest.raises(InputError, match=r"^ETA\.margin: -0\.1"):
        ETA(OneNorm(), margin=-0.1)
