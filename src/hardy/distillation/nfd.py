"""Normalised features: compares each channel of each image with the teacher's, independent of mean and scale.

    L = sum over pairs of mean (F(A(f_s)) - F(f_t))^2,    F(x) = (x - mean_hw x) / (std_hw x + 1e-6)

F uses the mean and the biased standard deviation over the positions of one channel of one image. The outer mean is over
images, channels and positions. A pair adds 2 (1 - r) for the mean correlation r: 0 for equal patterns, 2 for
independent ones, and at most 4. A is a 1x1 convolution without bias, trained with the student. If the maps differ in
size, the student's is resized to the teacher's before it is normalised.

A channel that is constant over an image is 0 after F, and no gradient flows through it. Public code that divides by the
norm instead of the standard deviation depends on the size of the map, so the paper's weight does not suit it.

Source: Liu et al., "Normalized feature distillation for semantic segmentation", arXiv:2207.05256, 2022. Which features
the paper compares could not be verified; here they are the encoder's last stage and the input of the head.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._features import FeatureLoss, standardised
from hardy.distillation._matching import Matching

__all__ = ["NFD"]


class NFD(FeatureLoss):
    """Args:
        matching: the features that belong together.
        weight: of the loss.
        taps: the features to compare, see `Matching`; maps only.

    Raises:
        InputError: for a negative ``weight``, and what `Matching.pairs` raises.
    """

    def __init__(
        self, matching: Matching, *, weight: float = 0.7, taps: Sequence[Any] = ("deepest", "embedding")
    ) -> None:
        super().__init__(weight, matching.pairs(taps, "NFD.taps"))

    def compare(self, student: Tensor, teacher: Tensor, place: int) -> Tensor:
        """See `FeatureLoss.compare`."""
        return F.mse_loss(standardised(student, (2, 3)), standardised(teacher, (2, 3)))
