"""The loss of ETA, which EATA and RDumb use too: the entropy of samples that are reliable and new."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.ops.entropy import entropy, flat

__all__ = ["reliable_loss"]


def reliable_loss(logits: Tensor, mean: Tensor, margin: float, redundancy: float) -> Tensor | None:
    """The mean of ``exp(E0 - E) E`` over the samples kept; None where none is. Updates ``mean`` in place.

    A sample is a pixel, or an image for image-level classes. Kept are those whose entropy E is below
    ``E0 = margin log K`` and whose softmax has a cosine with ``mean`` of an absolute value below ``redundancy``. The
    first factor is a constant of the gradient.

    Args:
        logits: (B, K, ...).
        mean: (K,), the running mean of the softmax of the samples kept, 0 before the first; it becomes
            ``0.9 mean + 0.1 new``, or ``new`` at first.
        margin: E0 as a share of the largest entropy, log K.
        redundancy: the bound of the cosine; 0 is the cosine with a mean of 0.
    """
    samples = flat(logits)
    bound = margin * math.log(samples.shape[1])
    surprise = entropy(samples)
    with torch.no_grad():
        probabilities = samples.softmax(1)
        alike = F.cosine_similarity(probabilities, mean.to(probabilities)[None], dim=1)
        kept = (surprise < bound) & (alike.abs() < redundancy)
        if not bool(kept.any()):
            return None
        new = probabilities[kept].mean(0)
        mean.copy_(torch.lerp(mean.to(new), new, 0.1) if bool(mean.any()) else new)
        weight = (bound - surprise[kept]).exp()
    return (weight * surprise[kept]).mean()
