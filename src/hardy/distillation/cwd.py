"""Channel-wise distillation: compares, for each class, the distribution of its logits over the positions of the image.

    L = T^2 / (N C) sum_nc KL(softmax_i(t_nci / T) || softmax_i(s_nci / T))

The softmax is over the positions i of one channel of one image. The channels are the classes. With ``taps`` they are
the channels of the teacher's features: a 1x1 convolution without bias maps the student's features to them, and the
result is resized to the teacher's map. L is then summed over the pairs, and the paper's weight is 50. Ignored pixels
are used, as in the paper, unless ``mask`` is True: then they are left out of both distributions.

Source: Shu, Liu, Gao, Yan and Shen, "Channel-wise knowledge distillation for dense prediction", ICCV 2021, eq. 3 and 4.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._features import FeatureLoss, wide
from hardy.distillation._matching import Matching
from hardy.distillation.base import PairedOutputs
from hardy.errors import InputError

__all__ = ["CWD"]


class CWD(FeatureLoss):
    """Args:
        matching: finds the taps; needed with ``taps``.
        weight: of the loss.
        temperature: T; above 1 the distributions are flatter.
        mask: leave out ignored pixels; for logits only.
        taps: features to compare instead of the logits, see `Matching`; maps only.

    Raises:
        InputError: for a ``temperature`` that is not above 0, a negative ``weight``, ``mask`` with ``taps``, and what
            `Matching.pairs` raises.
    """

    dense = True

    def __init__(
        self,
        matching: Matching | None = None,
        *,
        weight: float = 3.0,
        temperature: float = 4.0,
        mask: bool = False,
        taps: Sequence[Any] = (),
    ) -> None:
        if not 0 < temperature < math.inf:
            raise InputError(f"CWD.temperature: {temperature} is out of range; it must be above 0")
        if mask and taps:
            raise InputError(
                "CWD.mask: True leaves out ignored pixels of logits, not of features; leave out mask or taps"
            )
        super().__init__(weight, matching.pairs(taps, "CWD.taps") if taps and matching is not None else ())
        self.temperature, self.masks = temperature, mask

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; images without a position that counts add 0 if ``mask`` is True."""
        if self.pairs:
            return super().forward(outputs)
        return self._divergence(outputs.student, outputs.teacher, outputs.counted if self.masks else None)

    def compare(self, student: Tensor, teacher: Tensor, place: int) -> Tensor:
        """See `FeatureLoss.compare`."""
        return self._divergence(student, teacher, None)

    def _divergence(self, student: Tensor, teacher: Tensor, counted: Tensor | None) -> Tensor:
        log_p, log_q = (self._log_softmax(value, counted) for value in (teacher, student))
        each = log_p.exp() * (log_p - log_q)
        if counted is not None:
            each = torch.where(counted.flatten(1)[:, None], each, 0.0)
        return self.temperature**2 * each.sum(2).mean()

    def _log_softmax(self, values: Tensor, counted: Tensor | None) -> Tensor:
        """Over positions, (B, C, h w), in float32 or wider; a very small finite number where a pixel is left out."""
        spread = wide(values).flatten(2) / self.temperature
        if counted is not None:
            spread = spread.masked_fill(~counted.flatten(1)[:, None], torch.finfo(spread.dtype).min / 4)
        return F.log_softmax(spread, 2)
