"""Shared by the pixel losses: the loss and the weight of every pixel, and their weighted mean."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.types import IGNORE

__all__ = ["checked_weights", "mean", "pixel_losses"]


def checked_weights(class_weights: Sequence[float] | None, class_count: int) -> Tensor | None:
    """The class weights as a tensor (K,) float32, or None.

    Raises:
        InputError: when the number of weights is not K, or a weight is negative or not finite.
    """
    if class_weights is None:
        return None
    if len(class_weights) != class_count:
        raise InputError(f"class_weights has {len(class_weights)} numbers; the network has {class_count} classes")
    wrong = [weight for weight in class_weights if not (math.isfinite(weight) and weight >= 0)]
    if wrong:
        raise InputError(f"class_weights holds {wrong[0]}; each must be a number >= 0")
    return torch.tensor(class_weights, dtype=torch.float32)


def pixel_losses(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The cross-entropy and the weight of every pixel, each shaped like ``labels``; both are 0 at ignored pixels.

    The share ``smoothing`` of each label is spread equally over all classes.

    Computed in float32 or wider: a sum over a million pixels exceeds the range of float16.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing)
    counted = labels != IGNORE
    if class_weights is None:
        return losses, counted.to(losses.dtype)
    table = class_weights.to(losses)
    return losses, table[labels * counted] * counted


def mean(losses: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean; 0 with a gradient of 0 where all weights are 0."""
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, 1.0)
