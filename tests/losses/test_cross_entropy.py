import math

import pytest
import torch
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.losses.ohem import OHEM
from hardy.types import IGNORE


def test_by_hand() -> None:
    # Pixel 1: logits (0, ln 3), label 0 -> p = 1/4. Pixel 2: (0, 0), label 1 -> p = 1/2. Pixel 3 is ignored.
    logits = torch.tensor([[[0.0, 0.0, 5.0], [math.log(3), 0.0, -5.0]]])
    labels = torch.tensor([[0, 1, IGNORE]])
    assert CrossEntropy(2)(logits, labels).item() == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_class_weights_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0, 5.0], [math.log(3), 0.0, -5.0]]])
    labels = torch.tensor([[0, 1, IGNORE]])
    value = CrossEntropy(2, class_weights=[3.0, 1.0])(logits, labels).item()
    assert value == pytest.approx((3 * math.log(4) + math.log(2)) / 4)


def test_agrees_with_torch_where_something_is_labelled() -> None:
    logits, labels = torch.randn(2, 4, 9, 8), torch.randint(0, 4, (2, 9, 8))
    labels[:, :3] = IGNORE
    weights = [0.5, 1.0, 2.0, 4.0]
    torch.testing.assert_close(CrossEntropy(4)(logits, labels), F.cross_entropy(logits, labels, ignore_index=IGNORE))
    torch.testing.assert_close(
        CrossEntropy(4, class_weights=weights)(logits, labels),
        F.cross_entropy(logits, labels, weight=torch.tensor(weights), ignore_index=IGNORE),
    )


def test_smoothed_labels_by_hand() -> None:
    # Of a pixel with p = (1/4, 3/4) and label 0, a fifth of the label is shared: 0.9 log 4 + 0.1 log(4/3).
    logits = torch.tensor([[[0.0, 0.0, 5.0], [math.log(3), 0.0, -5.0]]])
    labels = torch.tensor([[0, 1, IGNORE]])
    first = 0.9 * math.log(4) + 0.1 * math.log(4 / 3)
    value = CrossEntropy(2, class_weights=[3.0, 1.0], smoothing=0.2)(logits, labels).item()
    assert value == pytest.approx((3 * first + math.log(2)) / 4)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_cannot_be_is_refused(smoothing: float) -> None:
    with pytest.raises(InputError, match=rf"CrossEntropy.smoothing: {smoothing} is out of range"):
        CrossEntropy(2, smoothing=smoothing)


def test_only_pixels_of_weightless_classes_give_zero() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    value = CrossEntropy(2, class_weights=[0.0, 1.0])(logits, torch.zeros(1, 3, 3, dtype=torch.long))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [CrossEntropy(5), OHEM(5)])
def test_the_sum_over_half_precision_pixels_is_right(loss: CrossEntropy | OHEM) -> None:
    logits = torch.full((1, 5, 512, 512), -6.0, dtype=torch.float16)
    logits[:, 1] = 6.0
    assert loss(logits, torch.zeros(1, 512, 512, dtype=torch.long)).item() == pytest.approx(12.0, abs=1e-3)
