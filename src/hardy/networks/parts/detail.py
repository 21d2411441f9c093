"""Detail guidance: the pixels on the fine structure of a label map, and the loss of a head that predicts them.

A Laplacian of the label map at strides 1, 2 and 4, enlarged to full size, marks edges. Their sum is weighted by 0.6,
0.3 and 0.1; a pixel whose sum is above 0.1 is a detail. Labels are ids, so the Laplacian is positive only on the side
of the higher id: edges are one pixel wide.

Edges exist only between labelled pixels. Ignored pixels and positions outside the image have no class, cause no edge,
and do not count in the loss.

Source: Fan, Lai, Huang, Wei, Chai, Luo and Wei, "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021,
section 3.3 and equations 2 and 3; the weights and the sign are those of the authors' release. The handling of ignored
pixels is Hardy's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.types import IGNORE, Terms

__all__ = ["detail_losses", "detail_targets"]

TENTHS = {1: 6, 2: 3, 4: 1}
"""Stride -> weight of its edges, in tenths: integers, so that the threshold is exact."""
THRESHOLD = 1


def detail_targets(labels: Tensor) -> Tensor:
    """``labels`` (B, H, W) int64 -> (B, H, W) bool, True on details; False where ignored."""
    edges = _edges(labels)
    height, width = labels.shape[-2:]
    total: Tensor = torch.zeros_like(labels)
    for stride, weight in TENTHS.items():
        sampled = edges[:, ::stride, ::stride]
        full_size = sampled.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)[:, :height, :width]
        total = total + weight * full_size
    return (total > THRESHOLD) & (labels != IGNORE)


def _edges(labels: Tensor) -> Tensor:
    """Where the sum of ``label - neighbour`` over the labelled neighbours, of eight, is positive; (B, H, W)."""
    counted = (labels != IGNORE).float()
    ids = labels * counted
    around = torch.ones(1, 1, 3, 3, dtype=counted.dtype, device=labels.device)
    stacked = torch.stack([ids, counted], dim=1).flatten(0, 1).unsqueeze(1)
    summed = F.conv2d(stacked, around, padding=1).unflatten(0, (-1, 2)).squeeze(2)
    laplacian: Tensor = ids * summed[:, 1] - summed[:, 0]
    return (laplacian > 0.5) & counted.bool()


def detail_losses(logits: Tensor, labels: Tensor) -> Terms:
    """The two loss terms of a detail head, each a mean over labelled pixels or images; 0 if there are none.

    Args:
        logits: (B, 1, H, W) at the size of the labels.
        labels: (B, H, W) int64.

    Returns:
        ``"detail_bce"``, the binary cross-entropy over labelled pixels, and ``"detail_dice"``, equation 2's
        ``1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1)`` per image.
    """
    counted = labels != IGNORE
    logits = logits.squeeze(1).to(torch.promote_types(logits.dtype, torch.float32))
    targets = detail_targets(labels).to(logits)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    bce = (losses * counted).sum() / counted.sum().clamp(min=1)
    predicted = logits.sigmoid() * counted
    both, each = (predicted * targets).flatten(1).sum(1), (predicted + targets).flatten(1).sum(1)
    dice = (1 - (2 * both + 1) / (each + 1)).mean()
    return {"detail_bce": bce, "detail_dice": dice}
