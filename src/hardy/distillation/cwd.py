"""Channel-wise distillation: where in the image a class has its mass, compared as a distribution over positions.

    L = T^2 / (N C) sum_nc KL(softmax_i(t_nci / T) || softmax_i(s_nci / T))

The softmax runs over the positions i of one channel of one image. Channels are classes. Ignored pixels take part, as
in the paper, unless ``mask`` is True: then they are left out of both distributions.

Source: Shu, Liu, Gao, Yan and Shen, "Channel-wise knowledge distillation for dense prediction", ICCV 2021, eq. 3 and 4.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.distillation.base import DistillationLoss, PairedOutputs
from hardy.errors import InputError

__all__ = ["CWD"]


class CWD(DistillationLoss):
    """Args:
        weight: of the loss.
        temperature: T; above 1 the distributions are flatter.
        mask: leave out ignored pixels.

    Raises:
        InputError: for a ``temperature`` that is not above 0, or a negative ``weight``.
    """

    dense = True

    def __init__(self, *, weight: float = 3.0, temperature: float = 4.0, mask: bool = False) -> None:
        super().__init__(weight)
        if not 0 < temperature < math.inf:
            raise InputError(f"CWD.temperature: {temperature} is out of range; it must be above 0")
        self.temperature, self.masks = temperature, mask

    def forward(self, outputs: PairedOutputs) -> Tensor:
        """See `DistillationLoss.forward`; images without a position that counts add 0 if ``mask`` is True."""
        log_p = self._log_softmax(outputs.teacher, outputs.counted)
        log_q = self._log_softmax(outputs.student, outputs.counted)
        each = log_p.exp() * (log_p - log_q)
        if self.masks:
            each = torch.where(outputs.counted.flatten(1)[:, None], each, 0.0)
        return self.temperature**2 * each.sum(2).mean()

    def _log_softmax(self, logits: Tensor, counted: Tensor) -> Tensor:
        """Over positions, (B, K, h w), in float32 at least; a finite small number where a pixel is left out."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(2) / self.temperature
        if self.masks:
            wide = wide.masked_fill(~counted.flatten(1)[:, None], torch.finfo(wide.dtype).min / 4)
        return F.log_softmax(wide, 2)
