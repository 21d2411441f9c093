"""CWD: the paper's equation in float64, its invariances, and ignored pixels."""

import distilled
import pytest
import torch
from distilled import Given, features, logits

from hardy.distillation.cwd import CWD
from hardy.errors import InputError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * distilled.draw(*shape, seed=seed)


def test_it_is_the_papers_equation() -> None:
    student, teacher = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    total = 0.0
    for image in range(2):
        for channel in range(3):
            p = (teacher[image, channel].flatten() / 4).softmax(0)
            q = (student[image, channel].flatten() / 4).softmax(0)
            total += float((p * (p / q).log()).sum())
    assert CWD()(logits(student, teacher)).item() == pytest.approx(16 * total / 6, rel=1e-12)


def test_a_shift_of_a_channel_changes_nothing_and_a_shift_of_a_place_does() -> None:
    student, teacher = draw(1, 3, 4, 5), draw(1, 3, 4, 5, seed=1)
    shifted = student + torch.tensor([1.0, -2.0, 5.0]).view(1, 3, 1, 1)
    loss = CWD()
    torch.testing.assert_close(loss(logits(shifted, teacher)), loss(logits(student, teacher)))
    assert loss(logits(student.roll(1, 3), teacher)).item() != pytest.approx(loss(logits(student, teacher)).item())
    assert loss(logits(teacher, teacher)).item() == pytest.approx(0, abs=1e-14)


def test_masked_pixels_leave_both_distributions() -> None:
    student, teacher = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    counted = torch.ones(2, 4, 5, dtype=torch.bool)
    counted[:, :2] = False
    counted[1] = False
    found = CWD(mask=True)(logits(student, teacher, counted))
    wanted = CWD()(logits(student[:1, :, 2:], teacher[:1, :, 2:]))
    assert found.item() == pytest.approx(wanted.item() / 2, rel=1e-9)  # the second image adds 0
    assert CWD()(logits(student, teacher, counted)).item() != pytest.approx(found.item())


def test_probabilities_that_underflow_stay_finite() -> None:
    student, teacher = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 4e3], [0.0, 0.0]]]])
    student.requires_grad_()
    value = CWD()(logits(student, teacher))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    with pytest.raises(InputError, match=r"CWD.temperature"):
        CWD(temperature=0.0)


def test_with_taps_the_channels_are_those_of_features() -> None:
    loss = CWD(Given((3, 5)), taps=["deepest"]).double()
    student, teacher = draw(2, 3, 8, 6), draw(2, 5, 4, 3, seed=1)
    projected = torch.nn.functional.interpolate(loss.aligners[0].project(student), size=(4, 3), mode="bilinear")
    found = loss(features((student, teacher)))
    torch.testing.assert_close(found, CWD()(logits(projected, teacher)))
    assert loss.aligner(loss.pairs[0]) == "1x1 convolution 3 to 5"
    with pytest.raises(InputError, match=r"CWD.mask: True leaves out ignored pixels of logits"):
        CWD(Given((3, 5)), mask=True, taps=["deepest"])
