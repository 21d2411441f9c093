"""Attention biases by distance, at any size: a table trained on one grid of cells, interpolated to another.

The bias between two cells depends on how many rows and columns lie between them, ``b[|y - y'|, |x - x'|]``. On a grid
of other sides the table is interpolated (bilinear, ends on ends), so that a distance counts as a share of the largest:
the bias of a cell with itself stays as it is, and so does that of opposite corners. On the trained grid nothing
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
        trained: (rows, columns) of the grid it was trained on.
        grid: (rows, columns) of the keys, h and w.
        stride: of the queries, which are every so many rows and columns of the keys, the first included.

    Returns:
        (heads, queries, h w), both in the order of rows; queries are ``ceil(h / stride) ceil(w / stride)``.
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
