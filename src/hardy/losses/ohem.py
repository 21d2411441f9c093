"""Online hard example mining: the mean cross-entropy of the pixels that are currently hard.

A labelled pixel is hard when the predicted probability of its class is below `threshold`. If fewer than the share
`min_kept` of the labelled pixels of the batch are hard, the pixels with the largest losses are used, up to that share.
Ignored pixels are never used and do not count in the share.

Source: Shrivastava, Gupta and Girshick, CVPR 2016, section 4; for pixels Wu, Shen and van den Hengel,
"Bridging category-level and instance-level semantic image segmentation", arXiv:1605.06885, 2016, section 3.3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.losses._pixels import checked_weights, mean, pixel_losses
from hardy.losses.base import Loss
from hardy.losses.cross_entropy import CrossEntropy
from hardy.types import IGNORE

__all__ = ["OHEM"]


class OHEM(Loss):
    """See the module.

    Args:
        class_count: K.
        threshold: probability in (0, 1] below which a pixel is hard.
        min_kept: the smallest share in (0, 1] of the labelled pixels that is used; at least one pixel is used.
        class_weights: K weights, one per class, each >= 0; they weight the mean and do not change which pixels are
            hard.

    Raises:
        InputError: for a threshold or a share out of range, or wrong class weights.
    """

    def __init__(
        self,
        class_count: int,
        *,
        threshold: float = 0.7,
        min_kept: float = 0.0625,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(class_count)
        for name, value in (("threshold", threshold), ("min_kept", min_kept)):
            if not 0 < value <= 1:
                raise InputError(f"ohem {name}={value}: it must be above 0 and at most 1")
        self.hard_loss = -math.log(threshold)
        self.min_kept = min_kept
        self.weights = checked_weights(class_weights, class_count)

    @property
    def plain(self) -> Loss:
        """The cross-entropy with the same class weights."""
        given = None if self.weights is None else self.weights.tolist()
        return CrossEntropy(self.class_count, class_weights=given)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `Loss`."""
        losses, weights = pixel_losses(logits, labels, self.weights)
        counted = labels != IGNORE
        losses, weights = losses[counted], weights[counted]
        if losses.numel() > 0:
            kept = self._hard(losses.detach())
            losses, weights = losses[kept], weights[kept]
        return mean(losses, weights)

    def _hard(self, losses: Tensor) -> Tensor:
        """The indices of the pixels to use, from the losses (n,) of the labelled pixels, n >= 1."""
        least = max(1, int(self.min_kept * losses.numel()))
        hard = torch.nonzero(losses > self.hard_loss).squeeze(1)
        return hard if hard.numel() >= least else losses.topk(least).indices
