"""Hints: the mean squared error between the student's features, after a 1x1 convolution, and the teacher's.

    L = sum over pairs of mean (A(f_s) - f_t)^2

The mean is over images, channels and positions. A is a 1x1 convolution without bias, trained with the student. If the
maps differ in size, the student's is resized to the teacher's.

Source: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, eq. 3; here with a 1x1 regressor, and with the
mean instead of half the sum.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._features import FeatureLoss
from hardy.distillation._matching import Matching

__all__ = ["FitNets"]


class FitNets(FeatureLoss):
    """Args:
        matching: the features that belong together.
        weight: of the loss.
        taps: the features to compare, see `Matching`; vectors are allowed.

    Raises:
        InputError: for a negative ``weight``, and what `Matching.pairs` raises.
    """

    def __init__(self, matching: Matching, *, weight: float = 10.0, taps: Sequence[Any] = ("deepest",)) -> None:
        super().__init__(weight, matching.pairs(taps, "FitNets.taps", vectors=True))

    def compare(self, student: Tensor, teacher: Tensor, place: int) -> Tensor:
        """See `FeatureLoss.compare`."""
        return F.mse_loss(student, teacher)
