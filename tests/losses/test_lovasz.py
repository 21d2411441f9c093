"""The Lovász-softmax loss: the IoU at certain predictions, its definition by thresholds in between."""

from itertools import pairwise

import pytest
import torch
from torchmetrics.functional.segmentation import mean_iou

from hardy.losses.cross_entropy import CrossEntropy
from hardy.losses.lovasz import Lovasz
from hardy.types import IGNORE


def by_thresholds(errors: torch.Tensor, truth: torch.Tensor) -> float:
    """The Lovász extension as the integral over t of the Jaccard loss of the pixels with an error of t or more."""
    levels = [0.0, *sorted(set(errors.tolist()))]
    total = 0.0
    for low, high in pairwise(levels):
        wrong = errors >= high
        total += (high - low) * (1 - (truth & ~wrong).sum().item() / (truth | wrong).sum().item())
    return total


def test_it_is_the_extension_of_the_jaccard_loss_of_each_class_that_occurs() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 5, 6), generator=generator)  # class 3 does not occur
    labels[0, 0] = IGNORE
    kept = labels != IGNORE
    p, y = logits.softmax(1).movedim(1, 3)[kept], labels[kept]
    expected = [by_thresholds(((y == c).double() - p[:, c]).abs(), y == c) for c in range(3)]
    assert Lovasz(4, cross_entropy=0)(logits, labels).item() == pytest.approx(sum(expected) / 3, rel=1e-12)
    weighted = Lovasz(4, cross_entropy=0, class_weights=[1.0, 0.0, 3.0, 5.0])(logits, labels)
    assert weighted.item() == pytest.approx((expected[0] + 3 * expected[2]) / 4, rel=1e-12)


def test_certain_predictions_have_one_minus_the_iou_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, answers = (torch.randint(0, 4, (1, 20, 30), generator=generator) for _ in range(2))
    logits = 1e3 * torch.nn.functional.one_hot(answers, 4).movedim(3, 1).double()
    score = mean_iou(answers, labels, num_classes=4, include_background=True, input_format="index")
    assert Lovasz(4, cross_entropy=0)(logits, labels).item() == pytest.approx(1 - score.item(), abs=1e-6)


def test_by_hand() -> None:
    """Errors 0.8 and 0.3 of class 0, which has both pixels: 0.8 * 1/2 + 0.3 * 1/2. Class 1 is absent."""
    p = torch.tensor([0.2, 0.7], dtype=torch.float64)
    logits, labels = torch.stack([p.log(), (1 - p).log()])[None, :, None, :], torch.zeros(1, 1, 2, dtype=torch.long)
    assert Lovasz(2, cross_entropy=0)(logits, labels).item() == pytest.approx(0.55)
    added = 2 * CrossEntropy(2)(logits, labels).item()
    assert Lovasz(2, cross_entropy=2)(logits, labels).item() == pytest.approx(0.55 + added)


def test_many_pixels_keep_their_small_steps() -> None:
    """Of a million certain pixels one is wrong: 1e-6. As a difference of numbers near 1, float32 would be 1 % off."""
    labels = torch.zeros(1, 1000, 1000, dtype=torch.long)
    logits = torch.zeros(1, 2, 1000, 1000)
    logits[:, 0] = 1e3
    logits[0, :, 0, 0] = torch.tensor([0.0, 1e3])
    assert Lovasz(2, cross_entropy=0)(logits, labels).item() == pytest.approx(1e-6, rel=1e-5)
