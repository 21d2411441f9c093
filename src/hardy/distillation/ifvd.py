"""Intra-class feature variation: the similarity between each pixel's feature and the mean feature of its class.

    L = mean_i (s^s_i - s^t_i)^2,    s_i = cos(f_i, mean of f over the pixels of i's class)

The first mean is over the pixels i with a label. The mean of a class is computed within an image, as in the authors'
code. A cell of the map has the label of the nearest pixel. No aligner is needed, because only cosines are compared. The
teacher's map is resized to the student's. For image-level classes all positions of an image have its class.

Source: Wang, Zhou, Jiang, Bai and Xu, "Intra-class feature variation distillation for semantic segmentation", ECCV
2020, eq. 1 to 3; the default weight is that of CIRKD's comparison (Yang et al., CVPR 2022); the authors use 200.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._maps import head_taps, labels_at, wide
from hardy.distillation._matching import Matching
from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.networks.base import resize
from hardy.types import IGNORE

__all__ = ["IFVD"]


class IFVD(DistillationLoss):
    """Args:
        matching: finds the taps.
        class_count: K, the number of classes.
        weight: of the loss.
        taps: see `Matching`; None for the embedding, or for image-level classes the deepest stage. Several are summed.

    Raises:
        InputError: for a negative ``weight``, and what `Matching.pairs` raises.
    """

    needs_labels = True

    def __init__(
        self, matching: Matching, class_count: int, *, weight: float = 20.0, taps: Sequence[Any] | None = None
    ) -> None:
        super().__init__(weight)
        self.class_count = class_count
        self.pairs = matching.pairs(head_taps(matching, taps), "IFVD.taps")

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; 0 if no pixel has a label."""
        assert outputs.labels is not None, "needs_labels says so"
        values = []
        for pair in self.pairs:
            student, teacher = (wide(value) for value in outputs.features(pair))
            with torch.autocast(student.device.type, enabled=False):
                size = student.shape[-2:]
                labels = labels_at(outputs.labels, size).flatten(1)
                own, taught = (self._closeness(x.flatten(2), labels) for x in (student, resize(teacher, size)))
                counted = labels != IGNORE
                error = torch.where(counted, (own - taught).square(), 0)
                values.append(error.sum() / counted.sum().clamp_min(1))
        return torch.stack(values).sum()

    def _closeness(self, x: Tensor, labels: Tensor) -> Tensor:
        """The cosine (B, n) between each position of ``x`` (B, C, n) and the mean of its class in its image."""
        labels = labels.clamp_max(self.class_count)  # ignored pixels become an additional class
        member = F.one_hot(labels, self.class_count + 1).to(x)
        means = (x @ member) / member.sum(1, keepdim=True).clamp_min(1)
        return F.cosine_similarity(x, means @ member.mT, 1)
