"""Maps that may have a single row or column, while `torch.export` leaves their size open.

Exported graphs hold sizes of 1 to be constants: a graph traced where a map has one row takes no image that gives it
two. So such a map is computed with a row and a column more, which a mask keeps at zero, as the padding of a convolution
is; and bilinear resizing is written as products with matrices that give them no weight. What comes of it is the same.

Source: Hardy's own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["halved_wider", "masked", "resized_from_wider"]


def halved_wider(x: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What to give to a convolution of stride 2 so that its map has a row and a column more, and the map's mask.

    Args:
        x: (B, C, h, w), or with a row and a column more that are zero.
        inside: the mask of ``x``, where it has them.

    Returns:
        ``x`` with zeros, (B, C, h + 2, w + 2), and (B, 1, ceil(h / 2) + 1, ceil(w / 2) + 1): 1 for the cells that the
        map has without them, 0 for the last row and column.
    """
    more = 2 if inside is None else 1
    inside = torch.ones_like(x[:, :1]) if inside is None else inside
    ends = (0, more, 0, more)
    return F.pad(x, ends), F.pad(inside, ends)[..., ::2, ::2]


def masked(x: Tensor, inside: Tensor | None) -> Tensor:
    """``x`` (B, C, h, w) with zeros where ``inside`` (B, 1, h, w) is 0; ``x`` itself without a mask."""
    return x if inside is None else x * inside


def resized_from_wider(x: Tensor, size: Sequence[int], *, wide: bool = False, align_corners: bool = False) -> Tensor:
    """``x`` (B, C, h + 1, w + 1) without its last row and column at ``size`` (H, W), bilinear, half-pixel centres, or
    from corner to corner with ``align_corners``.

    With ``wide`` the last row and column of the result are zeros, and the rest is at (H - 1, W - 1).
    """
    rows, columns = (
        _weights(there, wide, here - 1, x, align_corners) for there, here in zip(size, x.shape[-2:], strict=True)
    )
    product: Tensor = rows @ x @ columns.mT
    return product


def _weights(length: int, wide: bool, count: int, like: Tensor, align_corners: bool) -> Tensor:
    """(length, count + 1): what each cell gives to each place; rows sum to 1, the last column is 0.

    Place i lies at ``(i + 1/2) count / length - 1/2`` among the cells 0 .. count - 1, and outside at the nearest; with
    ``align_corners`` at ``i (count - 1) / (length - 1)``, and at 0 where there is one place. With ``wide`` there is
    one place less; its row is zeros, so that no matrix has a side of 1.
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
