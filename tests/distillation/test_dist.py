"""DIST: values by hand, the paper's equation, its invariances, ignored pixels, and torchdistill."""

import numpy as np
import pytest
import torch
from distilled import draw, logits

from hardy.distillation.dist import DIST
from hardy.errors import InputError


def test_it_is_the_papers_equation() -> None:
    student, teacher = 3 * draw(2, 4, 3, 5), 3 * draw(2, 4, 3, 5, seed=1)
    q, p = ((each / 2).softmax(1).movedim(1, -1).reshape(-1, 4).numpy() for each in (student, teacher))
    classes = np.mean([1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(30)])
    positions = np.mean([1 - np.corrcoef(p[:, k], q[:, k])[0, 1] for k in range(4)])
    found = DIST(temperature=2.0, beta=3.0, gamma=0.5)(logits(student, teacher))
    assert found.item() == pytest.approx(4 * (3 * classes + 0.5 * positions), rel=1e-10)


def test_values_by_hand() -> None:
    """Of two classes r is 1 or -1 in a pixel; one of four disagrees, so 2 / 4. Over pixels r is 1 / sqrt 3."""
    taught = torch.tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9]], dtype=torch.float64)
    said = torch.tensor([[0.9, 0.1, 0.1, 0.1], [0.1, 0.9, 0.9, 0.9]], dtype=torch.float64)
    student, teacher = (each.log().view(1, 2, 2, 2) for each in (said, taught))
    given = logits(student, teacher)
    assert DIST(gamma=0.0)(given).item() == pytest.approx(0.5, abs=1e-12)
    assert DIST(beta=0.0)(given).item() == pytest.approx(1 - 3**-0.5, abs=1e-12)
    assert DIST()(logits(teacher, teacher)).item() == pytest.approx(0, abs=1e-12)
    assert DIST(gamma=0.0)(logits(-teacher, teacher)).item() == pytest.approx(2, abs=1e-12)


def test_it_is_that_of_torchdistill() -> None:
    from torchdistill.losses.mid_level import DISTLoss

    student, teacher = 3 * draw(7, 5), 3 * draw(7, 5, seed=1)
    oracle = DISTLoss(".", "output", ".", "output", beta=2.0, gamma=0.7, tau=1.5)
    wanted = oracle({".": {"output": student}}, {".": {"output": teacher}})
    torch.testing.assert_close(DIST(beta=2.0, gamma=0.7, temperature=1.5)(logits(student, teacher)), wanted)
    maps = (each.view(1, 7, 1, 5).movedim(-1, 1) for each in (student, teacher))  # 7 pixels in place of 7 images
    torch.testing.assert_close(DIST(beta=2.0, gamma=0.7, temperature=1.5)(logits(*maps)), wanted)


def test_positions_that_do_not_count_are_left_out() -> None:
    student, teacher = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    counted = torch.ones(2, 4, 5, dtype=torch.bool)
    counted[:, :2] = False
    found = DIST()(logits(student, teacher, counted))
    torch.testing.assert_close(found, DIST()(logits(student[:, :, 2:], teacher[:, :, 2:])))
    student.requires_grad_()
    nothing = DIST()(logits(student, teacher, torch.zeros_like(counted)))
    nothing.backward()
    assert nothing.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_equal_probabilities_and_a_single_image_stay_finite() -> None:
    student = torch.zeros(1, 4, requires_grad=True)
    value = DIST()(logits(student, draw(1, 4).float()))
    value.backward()
    assert value.item() == 2
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("option", ["temperature", "beta", "gamma"])
def test_wrong_numbers_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=rf"DIST.{option}: -1.0 is out of range"):
        DIST(**{option: -1.0})
