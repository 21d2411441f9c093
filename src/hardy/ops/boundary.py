"""Boundaries between classes in a label map, and the loss of a network that finds them.

A pixel lies on a boundary when one of its four neighbours has another class; ignored pixels have none. The loss is the
binary cross-entropy in which each side weighs as much as the other, however few boundary pixels there are: with p the
share of them among the labelled pixels, ``-(1 / n) sum_i [(1 - p) y_i log s_i + p (1 - y_i) log(1 - s_i)]``.

Source: Xie and Tu, "Holistically-nested edge detection", ICCV 2015, equation 2, as the mean over pixels; as a network's
third loss Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023, section 3.4.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.types import IGNORE

__all__ = ["balanced_loss", "boundaries"]


def boundaries(labels: Tensor, *, width: int = 4, frame: int = 6) -> Tensor:
    """Where classes meet: (B, H, W) bool on the device of ``labels``.

    Args:
        labels: (B, H, W) int64 with `IGNORE` where unlabelled.
        width: of a straight boundary in pixels, even: half on either side.
        frame: pixels so near to the edge of the image make no boundary, though one from within may reach into them.
    """
    assert width > 0 == width % 2, f"a boundary {width} pixels wide has no middle"
    found = torch.zeros_like(labels, dtype=torch.bool)
    for axis in (1, 2):
        length = labels.shape[axis] - 1
        here, there = labels.narrow(axis, 0, length), labels.narrow(axis, 1, length)
        apart = (here != there) & (here != IGNORE) & (there != IGNORE)
        found.narrow(axis, 0, length).logical_or_(apart)
        found.narrow(axis, 1, length).logical_or_(apart)
    height, across = labels.shape[1:]
    inside = torch.zeros_like(found)
    inside[:, frame : max(frame, height - frame), frame : max(frame, across - frame)] = True
    found = found & inside
    if width == 2:
        return found
    return F.max_pool2d(found.float().unsqueeze(1), width - 1, 1, width // 2 - 1).squeeze(1) > 0


def balanced_loss(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """The balanced binary cross-entropy; 0 with a gradient of 0 where nothing is counted, or all on one side.

    Computed in float32 at least.

    Args:
        logits: (B, H, W).
        targets: (B, H, W) bool, True on a boundary.
        counted: (B, H, W) bool, the pixels with a label.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    total = counted.sum().clamp(min=1).to(logits.dtype)
    share = (targets & counted).sum() / total
    weights = torch.where(targets, 1 - share, share) * counted
    return (losses * weights).sum() / total
