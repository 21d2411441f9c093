"""Attention transfer: the student's spatial attention maps are to equal the teacher's, stage by stage.

    L = sum over pairs of mean (a_s - a_t)^2,    a = q / ||q||_2,    q_i = mean_c f_ci^2

The attention map a of an image has one value per position i and norm 1 over all positions. The mean is over images and
positions. With ``reduction: sum`` the positions are summed, which gives 2 (1 - cos) in [0, 2] for any map size. No
aligner is needed. If the maps differ in size, the student's q is resized to the teacher's.

Source: Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, eq. 2, squared and as a mean over
positions as in the authors' code; the default weight is that of CIRKD's comparison for segmentation.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._features import at_size, wide
from hardy.distillation._matching import Matching
from hardy.distillation.base import DistillationLoss, PairedOutputs

__all__ = ["AttentionTransfer"]


class AttentionTransfer(DistillationLoss):
    """Args:
        matching: the features that belong together.
        weight: of the loss; with ``sum``, 1e3 is usual in the literature.
        taps: the features to compare, see `Matching`; maps only.
        reduction: of the positions, ``mean`` or ``sum``.

    Raises:
        InputError: for a negative ``weight``, and what `Matching.pairs` raises.
    """

    def __init__(
        self,
        matching: Matching,
        *,
        weight: float = 1e4,
        taps: Sequence[Any] = ("stages",),
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(weight)
        self.pairs = matching.pairs(taps, "AttentionTransfer.taps")
        self.reduction = reduction

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`."""
        found = []
        for pair in self.pairs:
            student, teacher = (wide(value).square().mean(1, keepdim=True) for value in outputs.features(pair))
            student = at_size(student, teacher.shape[-2:])
            each = (F.normalize(student.flatten(1)) - F.normalize(teacher.flatten(1))).square()
            found.append(each.mean() if self.reduction == "mean" else each.sum(1).mean())
        return torch.stack(found).sum()
