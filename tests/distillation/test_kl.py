"""KL: values by hand, its limits, and the standardised form."""

import distilled
import pytest
import torch
from distilled import logits
from torch.nn import functional as F

from hardy.distillation.kl import KL
from hardy.errors import InputError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * distilled.draw(*shape, seed=seed)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_mean_divergence_of_a_pixel(temperature: float) -> None:
    student, teacher = draw(2, 5, 3, 4), draw(2, 5, 3, 4, seed=1)
    each = F.kl_div(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction="none")
    found = KL(temperature=temperature)(logits(student, teacher))
    assert found.item() == pytest.approx(temperature**2 * each.sum(1).mean().item(), rel=1e-12)


def test_a_value_by_hand() -> None:
    """Probabilities (3/4, 1/4) taught, (1/2, 1/2) said: 3/4 log 3/2 + 1/4 log 1/2 = 0.130812."""
    teacher = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    assert KL()(logits(torch.zeros(1, 2).double(), teacher)).item() == pytest.approx(0.1308120, abs=1e-7)


def test_it_does_not_depend_on_images_pixels_or_tiled_classes() -> None:
    student, teacher = draw(1, 4, 2, 3), draw(1, 4, 2, 3, seed=1)
    once = KL()(logits(student, teacher))
    for tiles in ((5, 1, 1, 1), (1, 1, 3, 1), (1, 1, 1, 4), (1, 3, 1, 1)):
        found = KL()(logits(student.repeat(tiles), teacher.repeat(tiles)))
        torch.testing.assert_close(found, once, rtol=1e-12, atol=0)
    assert KL()(logits(teacher, teacher)).item() == 0


def test_standardised_logits_are_free_of_range_and_shift() -> None:
    student, teacher = draw(2, 5, 3, 4), draw(2, 5, 3, 4, seed=1)
    loss = KL(temperature=2.0, standardise=True)
    assert loss(logits(7 * teacher + 3, teacher)).item() == pytest.approx(0, abs=1e-10)

    def scaled(z: torch.Tensor) -> torch.Tensor:
        return (z - z.mean(1, keepdim=True)) / z.std(1, correction=0, keepdim=True)

    wanted = KL(temperature=2.0)(logits(scaled(student), scaled(teacher)))
    torch.testing.assert_close(loss(logits(student, teacher)), wanted, rtol=1e-5, atol=0)


def test_equal_logits_have_no_deviation_and_no_gradient() -> None:
    student = torch.full((2, 5), 3.3, requires_grad=True)
    value = KL(temperature=2.0, standardise=True)(logits(student, draw(2, 5).float()))
    value.backward()
    wanted = KL(temperature=2.0, standardise=True)(logits(torch.zeros(2, 5), draw(2, 5).float()))
    torch.testing.assert_close(value, wanted)
    assert student.grad is not None
    assert not student.grad.any()


def test_it_is_that_of_torchdistill() -> None:
    from torchdistill.losses.mid_level import KDLoss, LogitStdKDLoss

    student, teacher = draw(6, 5), draw(6, 5, seed=1)
    values = {".": {"output": student}}, {".": {"output": teacher}}
    # its own form is without T^2, which it adds only beside labels; the standardised form has the unbiased deviation
    oracle = KDLoss(".", "output", ".", "output", temperature=4.0, alpha=0.0)
    torch.testing.assert_close(KL(temperature=4.0)(logits(student, teacher)), 16 * oracle(*values))
    oracle = LogitStdKDLoss(".", "output", ".", "output", temperature=4.0 * (4 / 5) ** 0.5, alpha=0.0)
    found = KL(temperature=4.0, standardise=True)(logits(student, teacher))
    torch.testing.assert_close(found, 16 * oracle(*values), rtol=1e-6, atol=0)


def test_other_reductions_differ_by_images_classes_or_pixels() -> None:
    """The traps of public code, for 19 classes and 8 x 8 pixels: what each form gives of the mean divergence."""
    for count in (1, 8):
        student, teacher = (draw(1, 19, 8, 8, seed=seed).repeat(count, 1, 1, 1) for seed in (0, 1))
        p, log_p, log_q = teacher.softmax(1), teacher.log_softmax(1), student.log_softmax(1)
        entropy = -(p * log_p).sum(1).mean()
        ours = KL()(logits(student, teacher))
        sum_by_pixels = (-p * log_q).sum() / 8 / 8
        torch.testing.assert_close(sum_by_pixels, count * (ours + entropy))  # grows with the batch; never 0
        torch.testing.assert_close(F.kl_div(log_q, p, reduction="none").mean(), ours / 19)  # the default, "mean"
        torch.testing.assert_close(F.kl_div(log_q, p, reduction="batchmean"), ours * 8 * 8)
        flat = [each.movedim(1, -1).reshape(-1, 19) for each in (log_q, p)]
        torch.testing.assert_close(F.kl_div(*flat, reduction="batchmean"), ours)


def test_pixels_that_do_not_count_are_left_out() -> None:
    student, teacher = draw(2, 5, 3, 4), draw(2, 5, 3, 4, seed=1)
    counted = torch.ones(2, 3, 4, dtype=torch.bool)
    counted[:, :2] = False
    found = KL()(logits(student, teacher, counted))
    torch.testing.assert_close(found, KL()(logits(student[:, :, 2:], teacher[:, :, 2:])))
    assert KL()(logits(student, teacher, torch.zeros_like(counted))).item() == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_cannot_be_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match=r"KL.temperature: .* must be above 0"):
        KL(temperature=temperature)
