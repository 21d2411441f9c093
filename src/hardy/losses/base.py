"""The interface of a pixel loss: one head's logits against labels."""

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["Loss"]


class Loss(ABC):
    """``loss(logits, labels) -> scalar``; logits (B, K, H, W) and labels (B, H, W), or (B, K) and (B,).

    Pixels labelled `hardy.types.IGNORE` do not count. If all pixels are ignored, the loss and its gradient are 0.
    The constructor takes ``class_count`` K before the ``*`` and its options after it.
    """

    def __init__(self, class_count: int) -> None:
        self.class_count = class_count

    @property
    def plain(self) -> "Loss":
        """This loss without the selection of hard pixels, for heads that use all labelled pixels.

        A loss that selects no pixels returns itself.
        """
        return self

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The scalar loss."""
