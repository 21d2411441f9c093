"""The entropy of class probabilities, per pixel or per image: ``-sum_k p_k log p_k`` with p the softmax of the logits.

Source: Shannon, "A mathematical theory of communication", Bell System Technical Journal 1948, section 6.
"""

import torch
from torch import Tensor

__all__ = ["entropy", "flat"]


def entropy(logits: Tensor) -> Tensor:
    """The entropy (B, ...) in nats, from 0 to log K, of ``logits`` (B, K, ...), in float32 or wider."""
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def flat(maps: Tensor) -> Tensor:
    """``maps`` (B, K, ...) as (N, K) in float32 or wider: each pixel, or each image, is one sample.

    The samples are ordered by image, then row, then column."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32)).movedim(1, -1).flatten(0, -2)
