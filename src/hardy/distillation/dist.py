"""DIST: correlates class probabilities with the teacher's, over the classes of a pixel and over the pixels of a class.

    L = T^2 (beta (1 - mean_i r(p_i, q_i)) + gamma (1 - mean_k r(p_k, q_k)))

p and q are the probabilities softmax(z / T) of teacher and student, and r is Pearson's correlation. The first mean
compares the K classes of each position i, the second all positions of the batch for each class k. Only positions that
count are used. For image-level classes the positions are the images, and the second part needs two or more images: for
a single image it is constant.

A scale and a shift of the probabilities do not change the loss, so a weaker student does not have to be as confident as
its teacher.

Source: Huang et al., "Knowledge distillation from a stronger teacher", NeurIPS 2022, eq. 4 to 8.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._features import wide
from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.errors import InputError, within

__all__ = ["DIST"]


class DIST(DistillationLoss):
    """Args:
        weight: of the loss.
        temperature: T.
        beta: of the part over classes.
        gamma: of the part over positions.

    Raises:
        InputError: for a ``temperature`` that is not above 0, or a negative ``weight``, ``beta`` or ``gamma``.
    """

    masks = True

    def __init__(self, *, weight: float = 1.0, temperature: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> None:
        super().__init__(weight)
        within("DIST.beta", beta, 0)
        within("DIST.gamma", gamma, 0)
        if not 0 < temperature < math.inf:
            raise InputError(f"DIST.temperature: {temperature} is out of range; it must be above 0")
        self.temperature, self.beta, self.gamma = temperature, beta, gamma

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; 0 if no position counts."""
        student, teacher = (
            (wide(logits).movedim(1, -1)[outputs.counted] / self.temperature).softmax(1)
            for logits in (outputs.student, outputs.teacher)
        )
        if not len(student):
            return student.sum()
        classes, positions = (1 - _correlation(student, teacher, over).mean() for over in (1, 0))
        return self.temperature**2 * (self.beta * classes + self.gamma * positions)


def _correlation(x: Tensor, y: Tensor, over: int) -> Tensor:
    """Pearson's correlation of ``x`` and ``y`` over one dimension; 0 where one of them is constant."""
    return F.cosine_similarity(x - x.mean(over, keepdim=True), y - y.mean(over, keepdim=True), over, eps=1e-8)
