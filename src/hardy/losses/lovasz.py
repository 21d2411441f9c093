"""Lovász-softmax loss: the convex extension of one minus the IoU of each class, beside the cross-entropy.

With the errors m_i[c] = |y_i[c] - p_i[c]| of the labelled pixels in falling order, the loss of class c is

    sum_k m_(k) (J_k - J_(k-1)),    J_k = 1 - |truth - F_k| / |truth or F_k|

where F_k are the k pixels with the largest errors: J_k is the Jaccard loss if exactly they were wrong. The mean is over
the classes that occur in the labels. For certain predictions it is one minus the IoU.

Source: Berman, Rannen Triki and Blaschko, "The Lovász-softmax loss: a tractable surrogate for the optimization of the
intersection-over-union measure in neural networks", CVPR 2018, definition 2 and the loss for several classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hardy.losses._regions import RegionLoss

__all__ = ["Lovasz"]


class Lovasz(RegionLoss):
    """See the module.

    Args:
        class_count: K.
        cross_entropy: the weight of the cross-entropy that is added, >= 0.
        class_weights: K weights, one per class, each >= 0, of both means; None gives all classes the same weight.

    Raises:
        InputError: for a negative or infinite weight of the cross-entropy, or wrong class weights.
    """

    def __init__(
        self, class_count: int, *, cross_entropy: float = 1.0, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(class_count, cross_entropy, class_weights)

    def of_classes(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """See `RegionLoss`."""
        errors, order = (truth.to(probabilities) - probabilities).abs().sort(dim=1, descending=True, stable=True)
        missed = truth.gather(1, order)  # pixels of the class; the others are false alarms
        size = truth.sum(1, keepdim=True)  # counts are exact integers, also above 2^24
        common, union = (size - missed.cumsum(1)).to(errors), (size + (~missed).cumsum(1)).to(errors)
        steps = torch.where(missed, 1 / union, common / (union * (union - 1)))  # J_k - J_(k-1)
        return (errors * steps).sum(1)
