"""A random sample of positions, spread evenly over a map, for maps where reading all positions costs too much.

The map is divided into a grid of roughly square cells, and one position is drawn in each cell (a stratified sample).
Each position has the same probability, and the sample covers the complete map. A fixed stride over the flattened map
would read a single column if the stride is a multiple of the width.

Source: stratified sampling, Cochran, "Sampling techniques", Wiley, 1977, chapter 5.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["sampled"]


def sampled(sides: Sequence[int], most: int, generator: torch.Generator) -> Tensor:
    """Indices (L,) int64 into the flattened map, L <= ``most``; all positions in order if there are at most ``most``.

    Args:
        sides: the size of the map: (h, w), or (N,) for tokens; all axes but the last are flattened.
        most: the largest number of positions, at least 1.
        generator: a CPU generator; the same state gives the same positions.
    """
    rows, columns = math.prod(sides[:-1]), sides[-1]
    if rows * columns <= most:
        return torch.arange(rows * columns)
    high, wide = _cells(rows, columns, most)
    down, across = torch.rand(2, high, wide, dtype=torch.float64, generator=generator)
    row = ((torch.arange(high)[:, None] + down) * (rows / high)).long().clamp_max(rows - 1)
    column = ((torch.arange(wide) + across) * (columns / wide)).long().clamp_max(columns - 1)
    flat: Tensor = row * columns + column
    return flat.flatten()


def _cells(rows: int, columns: int, most: int) -> tuple[int, int]:
    """(rows, columns) of the grid: at most ``most`` cells, none smaller than one position."""
    high = min(rows, max(1, round(math.sqrt(most * rows / columns))), most)
    wide = min(columns, most // high)
    return min(rows, most // wide), wide
