"""Dice loss: one minus the overlap of each class, for classes with few pixels, beside the cross-entropy.

    1 - mean_c (2 sum_i p_i[c] y_i[c]) / (sum_i p_i[c] + sum_i y_i[c])

over the labelled pixels i of the batch and the classes c that occur in their labels, where p_i is the softmax of the
logits and y_i[c] is 1 for the pixel's class. With `squared` the sums of the denominator are of squares.

Source: Milletari, Navab and Ahmadi, "V-Net: fully convolutional neural networks for volumetric medical image
segmentation", 3DV 2016, section 3 (squared); Drozdzal, Vorontsov, Chartrand, Kadoury and Pal, "The importance of skip
connections in biomedical image segmentation", DLMIA 2016, section 3 (not squared).
"""

from collections.abc import Sequence

from torch import Tensor

from hardy.losses._regions import RegionLoss

__all__ = ["Dice"]


class Dice(RegionLoss):
    """See the module.

    Args:
        class_count: K.
        squared: whether probabilities are squared in the denominator.
        cross_entropy: the weight of the cross-entropy that is added, >= 0.
        class_weights: K weights, one per class, each >= 0, of both means; None gives all classes the same weight.

    Raises:
        InputError: for a negative or infinite weight of the cross-entropy, or wrong class weights.
    """

    def __init__(
        self,
        class_count: int,
        *,
        squared: bool = False,
        cross_entropy: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(class_count, cross_entropy, class_weights)
        self.squared = squared

    def of_classes(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """See `RegionLoss`."""
        sizes = (probabilities.square() if self.squared else probabilities).sum(1) + truth.sum(1)
        return 1 - 2 * (probabilities * truth).sum(1) / sizes
