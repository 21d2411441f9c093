"""Pearson's correlation of features, for each channel over all images and positions of a batch.

    L = sum over pairs of mean (S(A(f_s)) - S(f_t))^2 / 2 = sum over pairs of 1 - r

S standardises a channel to mean 0 and standard deviation 1 over images and positions; r is the correlation, averaged
over channels. A loss of 0 means equal up to a scale and a shift of each channel; 1 means uncorrelated. A is a 1x1
convolution without bias, trained with the student; it is left out if the channels are the same. If the maps differ in
size, the student's is resized to the teacher's before it is standardised.

A channel that is constant over the batch is 0 after S, and no gradient flows through it.

Source: Cao et al., "PKD: general distillation framework for object detectors via Pearson correlation coefficient",
NeurIPS 2022, eq. 2 to 4.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._features import FeatureLoss, standardised
from hardy.distillation._matching import Matching

__all__ = ["PKD"]


class PKD(FeatureLoss):
    """Args:
        matching: the features that belong together.
        weight: of the loss.
        taps: the features to compare, see `Matching`; vectors are allowed.

    Raises:
        InputError: for a negative ``weight``, and what `Matching.pairs` raises.
    """

    def __init__(self, matching: Matching, *, weight: float = 6.0, taps: Sequence[Any] = ("deepest",)) -> None:
        super().__init__(weight, matching.pairs(taps, "PKD.taps", vectors=True), always=False)

    def compare(self, student: Tensor, teacher: Tensor, place: int) -> Tensor:
        """See `FeatureLoss.compare`."""
        over = (0, 2, 3)
        return F.mse_loss(standardised(student, over), standardised(teacher, over)) / 2
