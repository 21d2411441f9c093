"""Detail guidance: which pixels lie on the fine structure of a label map, and the loss of a head that is to find them.

A Laplacian of the label map, taken at strides 1, 2 and 4 and brought back to full size, marks edges; they are joined
with weights 0.6, 0.3 and 0.1, and a pixel whose sum is above 0.1 is a detail. Labels are ids, so the Laplacian is
positive on the side of the higher id: edges are one pixel thin.

Only pairs of labelled pixels make edges: an ignored pixel, and what lies outside the image, is no class, gives no edge
to its neighbours, and counts in no loss.

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
"""Stride -> weight of its edges in the sum, in tenths: whole numbers, so that the threshold is exact."""
THRESHOLD = 1


def detail_targets(labels: Tensor) -> Tensor:
    """``labels`` (B, H, W) int64 -> (B, H, W) bool, True on details; False where ignored."""
    edges = _edges(labels)
    height, width = labels.shape[-2:]
    total: Tensor = torch.zeros_like(labels)
    for stride, weight in TENTHS.items():
        sampled = edges[:, ::stride, ::stride]
        whole = sampled.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)[:, :height, :width]
        total = total + weight * whole
    return (total > THRESHOLD) & (labels != IGNORE)


def _edges(labels: Tensor) -> Tensor:
    """Where the sum over the labelled ones of the eight neighbours of ``label - neighbour`` is positive; (B, H, W)."""
    counted = (labels != IGNORE).float()
    ids = labels * counted
    around = torch.ones(1, 1, 3, 3, dtype=counted.dtype, device=labels.device)
    stacked = torch.stack([ids, counted], dim=1).flatten(0, 1).unsqueeze(1)
    summed = F.conv2d(stacked, around, padding=1).unflatten(0, (-1, 2)).squeeze(2)
    laplacian: Tensor = ids * summed[:, 1] - summed[:, 0]
    return (laplacian > 0.5) & counted.bool()


def detail_losses(logits: Tensor, labels: Tensor) -> Terms:
    """The two terms of a detail head, each the mean over the images or pixels that count; 0 if none does.

    Args:
        logits: (B, 1, H, W), at the size of the labels.
        labels: (B, H, W) int64.

    Returns:
        ``"detail_bce"``, the binary cross-entropy of the labelled pixels, and ``"detail_dice"``, equation 2's
        ``1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1)`` of each image.
    """
    counted = labels != IGNORE
    logits = logits.squeeze(1).to(torch.promote_types(logits.dtype, torch.float32))
    targets = detail_targets(labels).to(logits)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    bce = (losses * counted).sum() / counted.sum().clamp(min=1)
    said = logits.sigmoid() * counted
    both, each = (said * targets).flatten(1).sum(1), (said + targets).flatten(1).sum(1)
    dice = (1 - (2 * both + 1) / (each + 1)).mean()
    return {"detail_bce": bce, "detail_dice": dice}
