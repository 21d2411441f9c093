"""The values that a guard computes from the logits of a method and of the source network, without labels.

Source: see `hardy.adaptation._guard`.
"""

import math

import torch
from torch import Tensor

__all__ = ["CONFIDENT", "LEAST", "MOST", "agreement", "entropy", "image_entropies", "mixed", "pixels", "prototypes"]

CONFIDENT = 0.7
"""Pixels whose largest probability of the source is above this are used in `agreement`."""

LEAST = 0.004
"""The share of all pixels that must be confident pixels of a class, for the class to be used in `agreement`."""


MOST = 2**15
"""About the largest number of pixels that are used of an image; of a larger image, every n-th row and column."""


def pixels(logits: Tensor) -> Tensor:
    """``logits`` (B, K, H, W) or (B, K) as (N, K), in float32 and without gradient; see `MOST`."""
    if logits.ndim == 4:
        step = math.ceil(math.sqrt(logits.shape[2] * logits.shape[3] / MOST))
        logits = logits[:, :, ::step, ::step]
    return logits.detach().float().movedim(1, -1).flatten(0, -2)


def entropy(logits: Tensor) -> float:
    """The mean entropy of (N, K), as a share of log K."""
    return float(_entropies(logits, 1).mean())


def image_entropies(logits: Tensor) -> Tensor:
    """(B,): the mean entropy of each image of (B, K, H, W) or (B, K), as a share of log K."""
    return _entropies(logits.detach().float(), 1).flatten(1).mean(1) if logits.ndim > 2 else _entropies(logits, 1)


def agreement(found: Tensor, source: Tensor) -> float:
    """The mean over classes of the share of the source's confident pixels where the method predicts the same class.

    Args:
        found: (N,) the classes that the method predicts.
        source: (N, K) logits of the source network. Classes whose confident pixels are a smaller share than `LEAST` are
            left out. If no class is left, the result is 1.
    """
    best, classes = source.softmax(1).max(1)
    counted, many = best > CONFIDENT, source.shape[1]
    classes, found = classes[counted], found[counted]
    totals = torch.bincount(classes, minlength=many)
    shares = torch.bincount(classes[found == classes], minlength=many)[totals >= LEAST * len(source)]
    totals = totals[totals >= LEAST * len(source)]
    return float((shares / totals).mean()) if len(totals) else 1.0


def prototypes(logits: Tensor, classes: Tensor) -> Tensor:
    """(K, K): for each class, the sum of the probabilities of the pixels predicted as that class, divided by N.

    Args:
        logits: (N, K).
        classes: (N,) the predicted classes.
    """
    sums = torch.zeros(logits.shape[1], logits.shape[1], device=logits.device)
    return sums.index_add_(0, classes, logits.softmax(1)) / len(logits)


def mixed(logits: Tensor, source: Tensor, share: float, sure: float) -> Tensor:
    """The logits to return for a batch, from those of the method and of the source network, (B, K, H, W) or (B, K).

    Args:
        logits: of the method.
        source: of the source network.
        share: the weight of the source's probabilities; with 0 the result is ``logits``.
        sure: an image gets the source's logits if the source's mean entropy, as a share of log K, is below this.
    """
    if 0 < share < 1:
        ours = logits.log_softmax(1) + math.log(1 - share)
        logits = torch.logaddexp(ours, source.log_softmax(1) + math.log(share))
    keep = image_entropies(source) < sure
    return torch.where(keep.view(-1, *[1] * (logits.ndim - 1)), source, logits) if bool(keep.any()) else logits


def _entropies(logits: Tensor, axis: int) -> Tensor:
    """The entropy over the classes on ``axis``, as a share of log K."""
    logs = logits.log_softmax(axis)
    return -(logs.exp() * logs).sum(axis) / math.log(logits.shape[axis])
