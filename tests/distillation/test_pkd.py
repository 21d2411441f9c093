"""PKD: 1 - r by hand and against NumPy, its invariances, and constant channels."""

import numpy as np
import pytest
import torch
from distilled import Given, draw, features

from hardy.distillation.pkd import PKD


def test_it_is_one_minus_the_mean_correlation_of_a_channel() -> None:
    student, teacher = draw(3, 4, 5, 6), draw(3, 4, 5, 6, seed=1)
    teacher = teacher + student  # correlated: r is about 0.7
    rows = [each.movedim(1, 0).reshape(4, -1).numpy() for each in (student, teacher)]
    r = np.mean([np.corrcoef(rows[0][channel], rows[1][channel])[0, 1] for channel in range(4)])
    found = PKD(Given((4, 4)))(features((student, teacher)))
    assert found.item() == pytest.approx(1 - r, rel=1e-5)


def test_a_value_by_hand() -> None:
    """(0, 1, 2, 3) in two images against (0, 0, 1, 1): r = 2 / sqrt 5."""
    ramp, step = torch.tensor([0.0, 1, 2, 3]).double(), torch.tensor([0.0, 0, 1, 1]).double()
    given = features((ramp.view(2, 1, 1, 2), step.view(2, 1, 1, 2)))
    assert PKD(Given((1, 1)))(given).item() == pytest.approx(1 - 2 / 5**0.5, rel=1e-5)


def test_scale_and_shift_of_a_channel_change_nothing_and_an_image_has_its_level() -> None:
    loss, teacher = PKD(Given((2, 2))), draw(2, 2, 3, 4)
    assert loss(features((5 * teacher - 3, teacher))).item() == pytest.approx(0, abs=1e-10)
    moved = teacher + torch.tensor([0.0, 9.0]).double().view(2, 1, 1, 1)  # other than NFD, it compares across images
    assert loss(features((moved, teacher))).item() > 0.1


def test_an_aligner_is_there_only_where_channels_differ() -> None:
    loss = PKD(Given((2, 2), (2, 3)))
    assert [loss.aligner(pair) for pair in loss.pairs] == ["none", "1x1 convolution 2 to 3"]
    assert [name for name, _ in loss.named_parameters()] == ["aligners.1.project.weight"]


def test_constant_channels_do_not_blow_up() -> None:
    student = torch.full((2, 1, 13, 17), 12345.67, requires_grad=True)
    value = PKD(Given((1, 1)))(features((student, draw(2, 1, 13, 17).float())))
    value.backward()
    assert value.item() == pytest.approx(0.5, rel=1e-4)
    assert student.grad is not None
    assert not student.grad.any()
