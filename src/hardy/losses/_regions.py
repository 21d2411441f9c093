"""Shared by the losses of regions: one value per class from the probabilities of all labelled pixels of a batch.

The overlap of regions is no mean over pixels, so these losses look at the pixels of all images of a call together. The
mean is over the classes that occur in the labels. Cross-entropy, which gives each pixel its own gradient, is added.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.losses._pixels import checked_weights, mean, pixel_losses
from hardy.losses.base import Loss
from hardy.types import IGNORE

__all__ = ["RegionLoss"]


class RegionLoss(Loss):
    """The weighted mean of `of_classes` over the classes that occur, plus ``cross_entropy`` times the cross-entropy.

    The arguments, and the errors for wrong ones, are those of `hardy.losses.lovasz`.
    """

    def __init__(self, class_count: int, cross_entropy: float, class_weights: Sequence[float] | None) -> None:
        super().__init__(class_count)
        if not 0 <= cross_entropy < float("inf"):
            name = f"{type(self).__name__}.cross_entropy"
            raise InputError(f"{name}: {cross_entropy} is out of range; it must be a number >= 0")
        self.cross_entropy = cross_entropy
        self.weights = checked_weights(class_weights, class_count)

    @abstractmethod
    def of_classes(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """The losses (C,), each from 0 to 1, of the C classes that occur in the labels.

        Args:
            probabilities: (C, n) of the n labelled pixels, float32 or wider.
            truth: (C, n), True for the class of the pixel.
        """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `Loss`."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scores, found = logits.movedim(1, 0).flatten(1), labels.flatten()
        labelled = found != IGNORE
        if not labelled.all():
            scores, found = scores[:, labelled], found[labelled]
        truth = found == torch.arange(self.class_count, device=found.device)[:, None]
        occurs = truth.any(1)
        weights = scores.new_ones(self.class_count) if self.weights is None else self.weights.to(scores)
        loss = mean(self.of_classes(scores.softmax(0)[occurs], truth[occurs]), weights[occurs])
        if not self.cross_entropy:
            return loss
        return loss + self.cross_entropy * mean(*pixel_losses(logits, labels, self.weights))
