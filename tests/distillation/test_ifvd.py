"""IFVD: the paper's equation in float64, a value by hand, and pixels without a label."""

import math

import pytest
import torch
from feature_pairs import Given, draw, given, turned
from torch.nn import functional as F

from hardy.distillation.ifvd import IFVD
from hardy.types import IGNORE


def labels(*shape: int) -> torch.Tensor:
    found = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(2))
    found[:, 0] = IGNORE
    return found


def by_hand(student: torch.Tensor, teacher: torch.Tensor, given_labels: torch.Tensor) -> float:
    errors = []
    for own, taught, here in zip(student, teacher, given_labels, strict=True):
        for row in range(here.shape[0]):
            for column in range(here.shape[1]):
                label = here[row, column]
                if label == IGNORE:
                    continue
                close = []
                for x in (own, taught):
                    mean = x[:, here == label].mean(1)
                    close.append(float(F.cosine_similarity(x[:, row, column], mean, dim=0)))
                errors.append((close[0] - close[1]) ** 2)
    return sum(errors) / len(errors)


def test_it_is_the_papers_equation() -> None:
    student, teacher, here = draw(2, 3, 4, 5), draw(2, 6, 4, 5, seed=1), labels(2, 4, 5)
    found = IFVD(Given(3, 6), 3)(given(student, teacher, here))
    assert found.item() == pytest.approx(by_hand(student, teacher, here), rel=1e-9)


def test_a_value_by_hand() -> None:
    """Two pixels of one class at a right angle are at 45 degrees from their mean; the teacher's two are alike."""
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    teacher = torch.ones(1, 1, 1, 2)
    found = IFVD(Given(2, 1), 1)(given(student, teacher, torch.zeros(1, 1, 2, dtype=torch.int64)))
    assert found.item() == pytest.approx((1 - math.sqrt(0.5)) ** 2, rel=1e-6)


def test_only_cosines_within_a_class_matter() -> None:
    teacher = draw(2, 5, 4, 4)
    turn = torch.linalg.qr(draw(5, 5, seed=3))[0]
    student = 7 * torch.einsum("dc,bchw->bdhw", turn, teacher)
    assert IFVD(Given(5, 5), 3)(given(student, teacher, labels(2, 4, 4))).item() == pytest.approx(0, abs=1e-12)
    single = torch.arange(16).view(1, 4, 4).expand(2, -1, -1)  # every pixel is the mean of its class
    assert IFVD(Given(5, 5), 16)(given(turned(student), teacher, single)).item() == pytest.approx(0, abs=1e-12)


def test_pixels_without_a_label_change_nothing() -> None:
    student, teacher, here = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1), labels(2, 4, 5)
    loss = IFVD(Given(3, 3), 3)
    moved = student.clone()
    moved[:, :, 0] += 5 * draw(2, 3, 5, seed=4)
    assert torch.equal(loss(given(moved, teacher, here)), loss(given(student, teacher, here)))
    assert loss(given(student, teacher, torch.full_like(here, IGNORE))).item() == 0


def test_labels_and_the_teachers_map_are_brought_to_the_students_size() -> None:
    student, teacher, here = draw(2, 3, 4, 4), draw(2, 3, 8, 8, seed=1), labels(2, 4, 4)
    smaller = F.interpolate(teacher, size=(4, 4), mode="bilinear")
    large = here.repeat_interleave(3, 1).repeat_interleave(3, 2)
    loss = IFVD(Given(3, 3), 3)
    torch.testing.assert_close(loss(given(student, teacher, large)), loss(given(student, smaller, here)))
