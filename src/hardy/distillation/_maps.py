"""Shared by the feature losses: their default tap, labels and positions at the size of a map, pooling, affinities."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.distillation._matching import DEEPEST, Matching
from hardy.networks.parts.stages import EMBEDDING
from hardy.types import IGNORE

__all__ = ["affinity_error", "head_taps", "labels_at", "marked_at", "pooled", "tokens", "wide"]


def head_taps(matching: Matching, taps: Sequence[Any] | None) -> Sequence[Any]:
    """``taps``, or the default for None: the embedding, or the deepest stage for image-level classes.

    With image-level classes the embedding is a vector without positions.
    """
    if taps is not None:
        return taps
    return (DEEPEST,) if matching.student.image_level else (EMBEDDING,)


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def tokens(x: Tensor) -> Tensor:
    """The positions of ``x`` (B, C, h, w) in order, as (B, h w, C)."""
    return x.flatten(2).transpose(1, 2)


def labels_at(labels: Tensor, size: Sequence[int]) -> Tensor:
    """``labels`` (B, H, W), or (B,) for image-level classes, as (B, h, w) of ``size``, by nearest neighbour."""
    if labels.ndim == 1:
        return labels[:, None, None].expand(-1, *size)
    # float32 holds every class id exactly
    return F.interpolate(labels[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].long()


def marked_at(marked: Tensor, size: Sequence[int]) -> Tensor:
    """``marked`` (B, H, W) or (B,) bool as (B, h, w) of ``size``, by nearest neighbour."""
    return labels_at(torch.where(marked, 0, IGNORE), size) != IGNORE


def pooled(x: Tensor, most: int) -> Tensor:
    """``x`` (B, C, h, w), average-pooled with the smallest square window that leaves at most ``most`` cells."""
    high, wide_ = x.shape[-2:]
    side = 1
    while -(-high // side) * -(-wide_ // side) > most:
        side += 1
    return x if side == 1 else F.avg_pool2d(x, side, ceil_mode=True)


def affinity_error(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference between the student's and the teacher's cosine, over images and pairs of positions.

    The gradient includes that of the norms in the cosine. With U (n, C) the student's and V (n, C') the teacher's unit
    vectors, the sum is ``|U U^T - V V^T|^2 = |U^T U|^2 - 2 |U^T V|^2 + |V^T V|^2``. So no matrix of n x n values is
    needed if there are more positions than channels.

    Args:
        student: (B, C, h, w), float32 or wider.
        teacher: (B, C', h, w), at the same positions.
    """
    u, v = (F.normalize(tokens(x), dim=2) for x in (student, teacher))
    count = u.shape[1]
    if count <= max(u.shape[2], v.shape[2]):
        return (u @ u.mT - v @ v.mT).square().mean()
    own, cross, other = ((a.mT @ b).square().sum((1, 2)) for a, b in ((u, u), (u, v), (v, v)))
    return ((own - 2 * cross + other) / count**2).mean()
