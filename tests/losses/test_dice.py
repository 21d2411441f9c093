"""The Dice loss by hand, and against torchmetrics."""

import pytest
import torch
from torchmetrics.functional.segmentation import dice_score

from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.losses.dice import Dice
from hardy.types import IGNORE


def two_class(*probabilities: float) -> torch.Tensor:
    """Logits (1, 2, 1, n) whose softmax gives class 0 these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()])[None, :, None, :]


def test_by_hand() -> None:
    """Class 0: 2 * (0.75 + 0.5) / (1.5 + 2). Class 1: 2 * 0.75 / (1.5 + 1). The last pixel is ignored."""
    logits, labels = two_class(0.75, 0.5, 0.25, 0.1), torch.tensor([[[0, 0, 1, IGNORE]]])
    assert Dice(2, cross_entropy=0)(logits, labels).item() == pytest.approx(1 - (2.5 / 3.5 + 1.5 / 2.5) / 2)
    squares = [2.5 / (0.5625 + 0.25 + 0.0625 + 2), 1.5 / (0.0625 + 0.25 + 0.5625 + 1)]
    value = Dice(2, cross_entropy=0, squared=True)(logits, labels)
    assert value.item() == pytest.approx(1 - sum(squares) / 2)


def test_a_class_without_pixels_is_left_out() -> None:
    """Class 1 does not occur: only 2 * 1.25 / (1.25 + 2) counts."""
    logits, labels = two_class(0.75, 0.5), torch.zeros(1, 1, 2, dtype=torch.long)
    assert Dice(2, cross_entropy=0)(logits, labels).item() == pytest.approx(1 - 2.5 / 3.25)


def test_certain_predictions_have_the_score_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, answers = (torch.randint(0, 4, (1, 20, 30), generator=generator) for _ in range(2))
    logits = 1e3 * torch.nn.functional.one_hot(answers, 4).movedim(3, 1).double()
    score = dice_score(answers, labels, num_classes=4, include_background=True, input_format="index", average="macro")
    assert Dice(4, cross_entropy=0)(logits, labels).item() == pytest.approx(1 - score.item(), abs=1e-6)


def test_overlap_is_of_the_whole_batch() -> None:
    """Two images of two pixels, each without one class, have the loss of one image with all four pixels."""
    logits, labels = two_class(0.75, 0.5, 0.25, 0.1), torch.tensor([[[0, 0, 1, 1]]])
    split = logits.unflatten(3, (2, 2)).movedim(3, 0).flatten(0, 1), labels.unflatten(2, (2, 2)).movedim(2, 0)[:, 0]
    assert torch.equal(Dice(2)(*split), Dice(2)(logits, labels))


def test_cross_entropy_is_added_with_its_weight_and_class_weights_weigh_both() -> None:
    logits, labels = two_class(0.75, 0.5, 0.25, 0.1), torch.tensor([[[0, 0, 1, 1]]])
    weights = [3.0, 1.0]
    region = 1 - (3 * 2.5 / (1.6 + 2) + 2 * 1.65 / (2.4 + 2)) / 4
    added = 0.5 * CrossEntropy(2, class_weights=weights)(logits, labels).item()
    loss = Dice(2, cross_entropy=0.5, class_weights=weights)
    assert loss(logits, labels).item() == pytest.approx(region + added)
    assert loss.plain is loss


@pytest.mark.parametrize("share", [-0.1, float("inf"), float("nan")])
def test_refuses_a_weight_of_the_cross_entropy_that_is_no_weight(share: float) -> None:
    with pytest.raises(InputError, match=rf"Dice.cross_entropy: {share} is out of range"):
        Dice(2, cross_entropy=share)
