"""The Kullback-Leibler divergence from the teacher's class probabilities, per pixel or per image.

    L = T^2 mean_i KL(softmax(t_i / T) || softmax(s_i / T))

The mean is over the positions i that count; s and t are the logits of student and teacher. With ``standardise`` the
logits of each position are first shifted to mean 0 and divided by their standard deviation over the classes (biased,
plus 1e-7), so the student does not have to match the range of the teacher's logits.

The mean over positions makes the value independent of the number of images and pixels. It is 0 if the student equals
the teacher. Public code that sums over pixels or divides by the number of classes differs by these factors.

Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015, section 2; per
pixel: Liu et al., "Structured knowledge distillation for semantic segmentation", CVPR 2019, eq. 1; standardised: Sun et
al., "Logit standardization in knowledge distillation", CVPR 2024, algorithm 1.
"""

import math

from torch import Tensor

from hardy.distillation._features import standardised, wide
from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.errors import InputError
from hardy.ops.divergence import divergence

__all__ = ["KL"]


class KL(DistillationLoss):
    """Args:
        weight: of the loss.
        temperature: T; above 1 the small probabilities of the teacher have more weight.
        standardise: standardise the logits over the classes before they are divided by T.

    Raises:
        InputError: for a ``temperature`` that is not above 0, or a negative ``weight``.
    """

    masks = True

    def __init__(self, *, weight: float = 3.0, temperature: float = 1.0, standardise: bool = False) -> None:
        super().__init__(weight)
        if not 0 < temperature < math.inf:
            raise InputError(f"KL.temperature: {temperature} is out of range; it must be above 0")
        self.temperature, self.standardise = temperature, standardise

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; 0 if no position counts."""
        student, teacher = outputs.student, outputs.teacher
        if self.standardise:
            student, teacher = _standardised(student), _standardised(teacher)
        return divergence(teacher, student, outputs.counted, self.temperature)


def _standardised(logits: Tensor) -> Tensor:
    """``logits`` (B, K, ...) with mean 0 and standard deviation 1 over K, in float32 or wider; 0 for equal logits."""
    return standardised(wide(logits), (1,), 1e-7)
