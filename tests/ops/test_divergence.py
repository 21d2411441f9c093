"""The divergence by hand, against torch's own, and what it must not depend on."""

import math

import pytest
import torch
from torch.nn import functional as F

from hardy.ops.divergence import divergence


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_by_hand_for_two_classes():
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2)."""
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    found = divergence(teacher, student, torch.ones(1, dtype=torch.bool))
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-14)
    hot = divergence(teacher * 2, student, torch.ones(1, dtype=torch.bool), temperature=2.0)
    assert hot.item() == pytest.approx(4 * found.item(), rel=1e-14)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_against_torch_over_the_pixels_that_count(temperature):
    teacher, student = draw(3, 5, 4, 6), draw(3, 5, 4, 6, seed=1).requires_grad_(True)
    counted = draw(3, 4, 6, seed=2) > -0.3
    found = divergence(teacher, student, counted, temperature)
    rows = [logits.movedim(1, -1)[counted] / temperature for logits in (student, teacher)]
    wanted = F.kl_div(F.log_softmax(rows[0], 1), F.log_softmax(rows[1], 1), reduction="batchmean", log_target=True)
    assert found.item() == pytest.approx(temperature**2 * wanted.item(), rel=1e-12)
    gradient, expected = (torch.autograd.grad(loss, student)[0] for loss in (found, temperature**2 * wanted))
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)
    assert not gradient.movedim(1, -1)[~counted].any()


def test_equal_logits_are_at_distance_zero():
    logits = draw(2, 4, 3, 3)
    assert divergence(logits, logits + 7.5, torch.ones(2, 3, 3, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("images", "height", "width"), [(4, 1, 1), (1, 3, 1), (1, 1, 5)])
def test_more_of_the_same_is_the_same(images, height, width):
    teacher, student = draw(2, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    one = divergence(teacher, student, torch.ones(2, 3, 3, dtype=torch.bool))
    many = [logits.repeat(images, 1, height, width) for logits in (teacher, student)]
    counted = torch.ones(2 * images, 3 * height, 3 * width, dtype=torch.bool)
    assert divergence(*many, counted).item() == pytest.approx(one.item(), rel=1e-13)


def test_where_no_pixel_counts_it_is_zero_with_a_gradient_of_zero():
    student = draw(1, 3, 2, 2, seed=1).requires_grad_(True)
    found = divergence(draw(1, 3, 2, 2), student, torch.zeros(1, 2, 2, dtype=torch.bool))
    assert found.item() == 0
    assert not torch.autograd.grad(found, student)[0].any()


def test_half_precision_is_computed_in_float32():
    teacher, student = (60 * draw(1, 3, 40, 40, seed=seed).to(torch.bfloat16) for seed in (0, 1))
    found = divergence(teacher, student, torch.ones(1, 40, 40, dtype=torch.bool))
    wanted = divergence(teacher.double(), student.double(), torch.ones(1, 40, 40, dtype=torch.bool))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
