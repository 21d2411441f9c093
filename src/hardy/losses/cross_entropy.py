"""Cross-entropy, the mean over the labelled pixels, with optional class weights and label smoothing.

    sum_i w[y_i] * ((1 - e) * -log p_i[y_i] + e * mean_c -log p_i[c]) / sum_i w[y_i]

over the pixels i that are not ignored, where p_i is the softmax of the logits. Label smoothing (e above 0) spreads the
share e of each label equally over all classes.

Source: the negative log-likelihood of the softmax; Long, Shelhamer and Darrell, CVPR 2015, section 4; label smoothing:
Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for computer vision", CVPR 2016,
section 7.
"""

from collections.abc import Sequence

from torch import Tensor

from hardy.errors import InputError
from hardy.losses._pixels import checked_weights, mean, pixel_losses
from hardy.losses.base import Loss

__all__ = ["CrossEntropy"]


class CrossEntropy(Loss):
    """See the module.

    Args:
        class_count: K.
        class_weights: K weights, one per class, each >= 0; None gives all classes the same weight.
        smoothing: e, in [0, 1).

    Raises:
        InputError: when the number of weights is not K, a weight is negative or not finite, or ``smoothing`` is out of
            range.
    """

    def __init__(
        self, class_count: int, *, class_weights: Sequence[float] | None = None, smoothing: float = 0.0
    ) -> None:
        super().__init__(class_count)
        if not 0 <= smoothing < 1:
            raise InputError(f"CrossEntropy.smoothing: {smoothing} is out of range; it must be from 0 to below 1")
        self.smoothing = smoothing
        self.weights = checked_weights(class_weights, class_count)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `Loss`."""
        losses, weights = pixel_losses(logits, labels, self.weights, self.smoothing)
        return mean(losses, weights)
