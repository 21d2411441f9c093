"""MGD: the paper's equation with its own draw, the share that is hidden, and its scale."""

import pytest
import torch
from distilled import Given, draw, features
from torch.nn import functional as F

from hardy.distillation.mgd import MGD
from hardy.errors import InputError


def test_it_is_the_papers_equation_at_its_crops() -> None:
    loss = MGD(Given((3, 5))).double()
    student, teacher = draw(2, 3, 6, 8), draw(2, 5, 6, 8, seed=1)
    first, _, second = loss.generators[0]
    torch.manual_seed(3)
    kept = (torch.rand(2, 1, 6, 8) >= 0.75).double()
    x = F.conv2d(student, loss.aligners[0].project.weight) * kept
    x = F.conv2d(F.conv2d(x, first.weight, first.bias, padding=1).relu(), second.weight, second.bias, padding=1)
    torch.manual_seed(3)
    found = loss(features((student, teacher), size=(512, 1024)))
    assert found.item() == pytest.approx(2e-5 * (x - teacher).square().sum().item() / 2, rel=1e-12)


def test_three_quarters_of_the_positions_are_hidden_from_all_channels() -> None:
    """With a generator that changes nothing, a student of ones and a teacher of zeros, the loss counts what is kept."""
    loss = MGD(Given((2, 2))).double()
    for layer in (loss.generators[0][0], loss.generators[0][2]):
        layer.weight.data = torch.zeros(2, 2, 3, 3).double()
        layer.weight.data[:, :, 1, 1] = torch.eye(2)
        layer.bias.data.zero_()
    ones, zeros = torch.ones(1, 2, 200, 200).double(), torch.zeros(1, 2, 200, 200).double()
    torch.manual_seed(0)
    kept = loss(features((ones, zeros), size=(512, 1024))).item() / 2e-5 / 2
    assert kept == pytest.approx(10_000, abs=350)  # of 40 000; four deviations
    assert kept == pytest.approx(round(kept), abs=1e-6)  # a position is kept in both channels or in none
    opposite = torch.cat([ones[:, :1], -ones[:, 1:]], 1)
    torch.manual_seed(0)
    assert loss(features((opposite, zeros), size=(512, 1024))).item() / 2e-5 == pytest.approx(kept)


def test_the_value_does_not_grow_with_the_image() -> None:
    loss = MGD(Given((2, 2)), masked=0.0)
    for layer in (loss.generators[0][0], loss.generators[0][2]):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    values = [
        loss(features((torch.zeros(1, 2, *size), torch.ones(1, 2, *size)), size=(8 * size[0], 8 * size[1]))).item()
        for size in ((4, 8), (16, 8))
    ]
    assert values[0] == pytest.approx(2e-5 * 2 * 512 * 1024 / 64, rel=1e-6)
    assert values[1] == pytest.approx(values[0], rel=1e-6)


@pytest.mark.parametrize("masked", [-0.1, 1.0, float("nan")])
def test_a_share_that_hides_all_is_refused(masked: float) -> None:
    with pytest.raises(InputError, match=r"MGD.masked: .* at least 0 and below 1"):
        MGD(Given((2, 2)), masked=masked)
