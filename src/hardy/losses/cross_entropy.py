"""Cross-entropy, the mean over the labelled pixels, with optional class weights.

``sum_i w[y_i] * -log softmax(z_i)[y_i] / sum_i w[y_i]`` over the pixels i that are not ignored.

Source: the negative log-likelihood of the softmax; Long, Shelhamer and Darrell, CVPR 2015, section 4.
"""

from collections.abc import Sequence

from torch import Tensor

from hardy.losses._pixels import checked_weights, mean, pixel_losses
from hardy.losses.base import Loss

__all__ = ["CrossEntropy"]


class CrossEntropy(Loss):
    """See the module.

    Args:
        class_count: K.
        class_weights: K weights, one per class, none below 0; None gives all the same weight.

    Raises:
        InputError: when there are not K weights, or one is below 0.
    """

    def __init__(self, class_count: int, *, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(class_count)
        self.weights = checked_weights(class_weights, class_count)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `Loss`."""
        losses, weights = pixel_losses(logits, labels, self.weights)
        return mean(losses, weights)
