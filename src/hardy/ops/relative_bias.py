"""Attention biases by distance, for any image size: a table trained on one grid of cells is interpolated to another.

The bias between two cells depends on their distance in rows and columns, ``b[|y - y'|, |x - x'|]``. For a grid of
another size the table is interpolated (bilinear, with aligned corners), so a distance is used as a share of the largest
distance. The bias of a cell with itself and that of opposite corners do not change. On the trained grid nothing
changes.

Source: Graham et al., "LeViT: a vision transformer in ConvNet's clothing for faster inference", ICCV 2021, equation 2,
for the biases; their interpolation as for position embeddings: Dosovitskiy et al., ICLR 2021, section 3.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["relative_biases"]


def relative_biases(table: Tensor, trained: Sequence[int], grid: Sequence[int], stride: int = 1) -> Tensor:
    """The biases of all pairs of cells.

    Args:
        table: (heads, rows x columns of ``trained``), the bias for each distance.
        trained: (rows, columns) of the grid that the table was trained on.
        grid: (rows, columns) of the keys, h and w.
        stride: of the queries: they are every ``stride``-th row and column of the keys, from the first.

    Returns:
        (heads, queries, h w), both in row order; there are ``ceil(h / stride) ceil(w / stride)`` queries.
    """
    height, width = grid
    cells = table.unflatten(1, tuple(trained)).unsqueeze(0)
    stretched = F.interpolate(cells, size=(height, width), mode="bilinear", align_corners=True)[0]
    rows, columns = (_distances(side, stride, table.device) for side in (height, width))
    index = (rows * width).unsqueeze(1).unsqueeze(3) + columns.unsqueeze(0).unsqueeze(2)
    return stretched.flatten(1)[:, index.flatten(2).flatten(0, 1)]


def _distances(side: int, stride: int, device: torch.device) -> Tensor:
    """(ceil(side / stride), side): from each query to each key along one axis."""
    return (torch.arange(0, side, stride, device=device).unsqueeze(1) - torch.arange(side, device=device)).abs()
