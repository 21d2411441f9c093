"""Maps that may have a single row or column, while `torch.export` leaves their size open.

`torch.export` treats a size of 1 as a constant: a graph traced with a map of one row does not accept an image whose map
has two. So such a map is computed with one more row and column. A mask keeps them at zero, like the padding of a
convolution, and bilinear resizing is a product with matrices that give them the weight 0. The values do not change.

Source: Hardy's own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["halved_wider", "masked", "resized_from_wider"]


def halved_wider(x: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The input of a convolution of stride 2 whose output gets one more row and column, and the mask of the output.

    Args:
        x: (B, C, h, w); or (B, C, h + 1, w + 1) with one more row and column of zeros.
        inside: the mask of ``x`` if it has one more row and column, else None.

    Returns:
        ``x`` padded with zeros to (B, C, h + 2, w + 2); and the mask (B, 1, ceil(h / 2) + 1, ceil(w / 2) + 1), which is
        0 in the last row and column and 1 elsewhere.
    """
    more = 2 if inside is None else 1
    inside = torch.ones_like(x[:, :1]) if inside is None else inside
    ends = (0, more, 0, more)
    return F.pad(x, ends), F.pad(inside, ends)[..., ::2, ::2]


def masked(x: Tensor, inside: Tensor | None) -> Tensor:
    """``x`` (B, C, h, w) with zeros where ``inside`` (B, 1, h, w) is 0; unchanged ``x`` without a mask."""
    return x if inside is None else x * inside


def resized_from_wider(x: Tensor, size: Sequence[int], *, wide: bool = False, align_corners: bool = False) -> Tensor:
    """The first h rows and w columns of ``x`` (B, C, h + 1, w + 1), resized to ``size`` (H, W), bilinear.

    Args:
        x: a map with one more row and column than needed.
        size: (H, W) of the result.
        wide: fill the last row and column of the result with zeros, and resize to (H - 1, W - 1).
        align_corners: resize with aligned corners; False for half-pixel centres.
    """
    rows, columns = (
        _weights(there, wide, here - 1, x, align_corners) for there, here in zip(size, x.shape[-2:], strict=True)
    )
    product: Tensor = rows @ x @ columns.mT
    return product


def _weights(length: int, wide: bool, count: int, like: Tensor, align_corners: bool) -> Tensor:
    """(length, count + 1): the weight of each cell for each output place; rows sum to 1, the last column is 0.

    Place i is at ``(i + 1/2) count / length - 1/2`` on the axis of the cells 0 .. count - 1, clamped to this range.
    With ``align_corners`` it is at ``i (count - 1) / (length - 1)``, or at 0 if there is one place. With ``wide`` there
    is one place less, and the last row is zeros, so that no matrix has a side of 1.
    """
    places = length - wide
    place = torch.arange(length, device=like.device, dtype=like.dtype).unsqueeze(1)
    cell = torch.arange(count + 1, device=like.device, dtype=like.dtype).unsqueeze(0)
    if align_corners:
        steps: Any = torch.sym_max(1, places - 1)
        centre = place * (count - 1) / steps
    else:
        centre = ((place + 0.5) * count / places - 0.5).clamp(min=0)
    centre = torch.minimum(centre, torch.zeros_like(centre) + (count - 1))
    weights = (1 - (centre - cell).abs()).clamp(min=0)
    return weights * (place < places) if wide else weights
