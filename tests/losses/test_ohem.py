import math

import pytest
import torch

from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.losses.ohem import OHEM
from hardy.types import IGNORE


def two_class(*probabilities: float) -> torch.Tensor:
    """Logits (1, 2, 1, n) whose softmax gives class 0 these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()])[None, :, None, :]


def test_keeps_the_pixels_below_the_threshold() -> None:
    logits, labels = two_class(0.9, 0.6, 0.5, 0.95), torch.zeros(1, 1, 4, dtype=torch.long)
    expected = -(math.log(0.6) + math.log(0.5)) / 2
    assert OHEM(2, threshold=0.7, min_kept=0.25)(logits, labels).item() == pytest.approx(expected)


def test_takes_the_hardest_when_too_few_are_hard() -> None:
    logits, labels = two_class(0.9, 0.8, 0.95, 0.99), torch.zeros(1, 1, 4, dtype=torch.long)
    expected = -(math.log(0.9) + math.log(0.8)) / 2
    assert OHEM(2, threshold=0.7, min_kept=0.5)(logits, labels).item() == pytest.approx(expected)


def test_the_share_is_of_the_labelled_pixels() -> None:
    # 4 of 8 pixels are labelled: half of them is 2, half of all would be 4. The hardest pixel of all is ignored.
    logits = two_class(0.9, 0.8, 0.95, 0.99, 0.01, 0.02, 0.03, 0.04)
    labels = torch.tensor([[[0, 0, 0, 0, IGNORE, IGNORE, IGNORE, IGNORE]]])
    expected = -(math.log(0.9) + math.log(0.8)) / 2
    assert OHEM(2, threshold=0.7, min_kept=0.5)(logits, labels).item() == pytest.approx(expected)


def test_one_labelled_pixel_is_kept_however_easy() -> None:
    logits, labels = two_class(0.99, 0.2), torch.tensor([[[0, IGNORE]]])
    assert OHEM(2)(logits, labels).item() == pytest.approx(-math.log(0.99))


def test_keeping_all_is_cross_entropy() -> None:
    logits, labels = torch.randn(2, 4, 5, 6).double(), torch.randint(0, 4, (2, 5, 6))
    labels[0, 0] = IGNORE
    torch.testing.assert_close(OHEM(4, min_kept=1.0)(logits, labels), CrossEntropy(4)(logits, labels))


def test_class_weights_weigh_the_mean_and_not_the_choice() -> None:
    logits, labels = two_class(0.9, 0.6, 0.5, 0.95), torch.tensor([[[0, 0, 1, 1]]])
    # Hard: pixel 2 (p 0.6 of class 0), pixel 3 (0.5 of class 1), pixel 4 (0.05 of class 1).
    expected = -(4 * math.log(0.6) + math.log(0.5) + math.log(0.05)) / 6
    loss = OHEM(2, min_kept=0.25, class_weights=[4.0, 1.0])
    assert loss(logits, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1.5}, {"min_kept": 0.0}, {"min_kept": 2.0}])
def test_refuses_what_is_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        OHEM(2, **options)


def test_without_mining_it_is_cross_entropy_with_the_same_weights() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8))
    loss = OHEM(4, threshold=0.1, min_kept=0.05, class_weights=[1.0, 2.0, 3.0, 4.0])
    expected = CrossEntropy(4, class_weights=[1.0, 2.0, 3.0, 4.0])
    assert torch.equal(loss.plain(logits, labels), expected(logits, labels))
    assert expected.plain is expected
    assert not torch.equal(loss(logits, labels), expected(logits, labels))
