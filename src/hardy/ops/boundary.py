"""Boundaries between classes in a label map, and the loss of a network that detects them.

A pixel is on a boundary if one of its four neighbours has another class; ignored pixels are not compared. The loss is
the class-balanced binary cross-entropy. With p the share of boundary pixels among the n labelled pixels, it is ``-(1 /
n) sum_i [(1 - p) y_i log s_i + p (1 - y_i) log(1 - s_i)]``, so both classes have the same total weight.

Source: Xie and Tu, "Holistically-nested edge detection", ICCV 2015, equation 2, here as the mean over pixels; as an
additional loss of a network: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired
by PID controllers", CVPR 2023, section 3.4.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.types import IGNORE

__all__ = ["balanced_loss", "boundaries"]


def boundaries(labels: Tensor, *, width: int = 4, frame: int = 6) -> Tensor:
    """The boundary pixels: (B, H, W) bool on the device of ``labels``.

    Args:
        labels: (B, H, W) int64 with `IGNORE` where unlabelled.
        width: width of a straight boundary in pixels, an even number: half on either side.
        frame: no boundary starts within this many pixels of the image's edge, but a boundary further inside may extend
            into them.
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
    """The balanced binary cross-entropy, computed in float32 or wider.

    The loss and its gradient are 0 if no pixel is counted, or if all counted pixels are of the same kind.

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
