"""KL: values by hand, its limits, and the standardised form."""

import pytest
import torch
from torch.nn import functional as F

from hardy.distillation.base import PairedOutputs
from hardy.distillation.kl import KL
from hardy.errors import InputError


def paired(student: torch.Tensor, teacher: torch.Tensor) -> PairedOutputs:
    counted = torch.ones(student.shape[:1] + student.shape[2:], dtype=torch.bool)
    return PairedOutputs(torch.zeros(len(student), 3, 8, 8), student, teacher, counted)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_mean_divergence_of_a_pixel(temperature: float) -> None:
    student, teacher = draw(2, 5, 3, 4), draw(2, 5, 3, 4, seed=1)
    each = F.kl_div(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction="none")
    found = KL(temperature=temperature)(paired(student, teacher))
    assert found.item() == pytest.approx(temperature**2 * each.sum(1).mean().item(), rel=1e-12)


def test_a_value_by_hand() -> None:
    """Probabilities (3/4, 1/4) taught, (1/2, 1/2) said: 3/4 log 3/2 + 1/4 log 1/2 = 0.130812."""
    teacher = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    assert KL()(paired(torch.zeros(1, 2).double(), teacher)).item() == pytest.approx(0.1308120, abs=1e-7)


def test_it_does_not_depend_on_images_pixels_or_tiled_classes() -> None:
    student, teacher = draw(1, 4, 2, 3), draw(1, 4, 2, 3, seed=1)
    once = KL()(paired(student, teacher))
    for tiles in ((5, 1, 1, 1), (1, 1, 3, 1), (1, 1, 1, 4), (1, 3, 1, 1)):
        found = KL()(paired(student.repeat(tiles), teacher.repeat(tiles)))
        torch.testing.assert_close(found, once, rtol=1e-12, atol=0)
    assert KL()(paired(teacher, teacher)).item() == 0


def test_standardised_logits_are_free_of_range_and_shift() -> None:
    student, teacher = draw(2, 5, 3, 4), draw(2, 5, 3, 4, seed=1)
    loss = KL(temperature=2.0, standardise=True)
    assert loss(paired(7 * teacher + 3, teacher)).item() == pytest.approx(0, abs=1e-10)

    def scaled(logits: torch.Tensor) -> torch.Tensor:
        return (logits - logits.mean(1, keepdim=True)) / logits.std(1, correction=0, keepdim=True)

    wanted = KL(temperature=2.0)(paired(scaled(student), scaled(teacher)))
    torch.testing.assert_close(loss(paired(student, teacher)), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_cannot_be_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match=r"KL.temperature: .* must be above 0"):
        KL(temperature=temperature)
