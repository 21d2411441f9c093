"""Which positions of a map are looked at where all of them would cost too much: a random sample, even over the map.

The map is cut into a grid of cells of about square shape and one position is drawn in each (a stratified sample), so
every row and every column has its share and none is left out for good, as it is by a fixed stride over the flattened
map, which reads one column alone wherever it is a multiple of the width. Each position has the same chance.

Source: stratified sampling, Cochran, "Sampling techniques", Wiley, 1977, chapter 5.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["sampled"]


def sampled(sides: Sequence[int], most: int, generator: torch.Generator) -> Tensor:
    """Indices (L,) int64 into the flattened map, L <= ``most``; all of them, in order, where there are no more.

    Args:
        sides: of the map: (h, w), or (N,) of a row of tokens; all but the last are taken as one.
        most: the most positions that may be drawn, at least 1.
        generator: of the CPU; the same state gives the same positions.
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
    """How many cells stand below and beside each other: about as many as asked for, none smaller than a position."""
    high = min(rows, max(1, round(math.sqrt(most * rows / columns))), most)
    wide = min(columns, most // high)
    return min(rows, most // wide), wide
