"""The loss of ETA, EATA and RDumb: the entropy of samples that are reliable and differ from earlier ones."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.ops.entropy import entropy, flat

__all__ = ["reliable_loss"]


def reliable_loss(logits: Tensor, mean: Tensor, margin: float, redundancy: float) -> Tensor | None:
    """The mean of ``exp(E0 - E) E`` over the kept samples; None if no sample is kept. Updates ``mean`` in place.

    A sample is a pixel, or an image for image-level classes. A sample is kept if its entropy E is below ``E0 = margin
    log K`` and the absolute cosine between its softmax and ``mean`` is below ``redundancy``. No gradient flows through
    the first factor.

    Args:
        logits: (B, K, ...).
        mean: (K,), the running mean of the softmax of the kept samples, 0 before the first. It becomes ``0.9 mean + 0.1
            new``, or ``new`` the first time.
        margin: E0 as a share of the largest entropy, log K.
        redundancy: the limit of the cosine. While ``mean`` is 0, the cosine is 0.
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
