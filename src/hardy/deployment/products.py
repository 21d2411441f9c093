"""Pooling and resizing as matrix products: how a graph of fixed size computes them.

Adaptive average pooling is ``P_h x P_w^T``: row i of P (cells, length) holds 1 / n at the n pixels of cell i, those
from ``floor(i * length / cells)`` to ``ceil((i + 1) * length / cells) - 1``. This is the operator's own definition. The
exporter instead writes one gather per cell: about a hundred nodes for a pyramid whose cells do not divide the map. At a
dynamic size it keeps the example's indices in the graph, which then fails or is wrong at any other size.

Bilinear resizing is ``R_h x R_w^T``: row i of R (length, cells) holds the weights of the two cells next to pixel i.
With many cells R_h is almost all zeros, so its product is computed in windows: a block of pixel rows at a time, with
only the rows of cells that they need.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["PRODUCT_LIMIT", "Factors", "Products", "adaptive_mean", "bilinear", "factors", "multiplications"]

PRODUCT_LIMIT = 64
"""Bilinear resizing is written as products up to this many multiplications per value, above it as ONNX's Resize.

``benchmarks/epilogue.py`` times both forms.
"""

_ROWS = 32
"""Target number of pixel rows per window: fewer rows mean more calls, more rows mean more zeros."""


class Products(TorchFunctionMode):
    """Inside this context `torch.nn.functional`'s ``adaptive_avg_pool2d`` and bilinear ``interpolate`` are products.

    Args:
        resizing: also replace ``interpolate`` where products are faster; sizes must be fixed, since products hold them.
    """

    def __init__(self, *, resizing: bool) -> None:
        super().__init__()
        self.resizing = resizing

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The product, or what ``func`` returns."""
        kwargs, replaced = kwargs or {}, None
        if func is F.adaptive_avg_pool2d:
            replaced = _pooled(*args, **kwargs)
        elif func is F.interpolate and self.resizing:
            replaced = _resized(*args, **kwargs)
        return func(*args, **kwargs) if replaced is None else replaced


def adaptive_mean(x: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling of ``x`` (B, C, H, W) to ``size`` (h, w) cells, as matrix products."""
    if tuple(size) == (1, 1):
        return x.mean((-2, -1), keepdim=True)
    return _shares(x.shape[-2], size[0], x) @ x @ _shares(x.shape[-1], size[1], x).T


class Factors(NamedTuple):
    """The matrices of bilinear resizing from (h, w) cells to (H, W) pixels.

    Attributes:
        across: (w, W), for all rows of cells.
        rows: (windows, t), the rows of cells that each window of pixel rows needs.
        down: (windows, H / windows, t), for these rows.
    """

    across: Tensor
    rows: Tensor
    down: Tensor


def factors(cells: Sequence[int], size: Sequence[int], like: Tensor) -> Factors:
    """The matrices from ``cells`` (h, w) to ``size`` (H, W), on the device and in the precision of ``like``."""
    columns = torch.arange(cells[1], device=like.device)
    across = _weights(_centres(size[1], cells[1], like), columns).to(like.dtype).T
    rows, touched = _window(size[0], cells[0])
    centre = _centres(size[0], cells[0], like).view(-1, rows)  # (windows, rows)
    first = centre[:, 0].floor().clamp(max=cells[0] - touched).long()
    inside = first.unsqueeze(1) + torch.arange(touched, device=like.device)  # (windows, cells touched)
    return Factors(across, inside, _weights(centre, inside).to(like.dtype))


def bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """``x`` (B, C, h, w) resized to ``size`` (H, W) bilinearly with half-pixel centres, as matrix products."""
    across, rows, down = factors(x.shape[-2:], size, x)
    wide = x @ across
    if len(rows) == 1:
        return down[0] @ wide
    parts = wide.index_select(-2, rows.flatten()).unflatten(-2, tuple(rows.shape))
    resized: Tensor = (down @ parts).flatten(-3, -2)
    return resized


def _pooled(input: Tensor, output_size: Any) -> Tensor | None:
    """``F.adaptive_avg_pool2d`` as products; None if a side of the output size is None."""
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    return None if None in size else adaptive_mean(input, size)


def _resized(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor | None:
    """``F.interpolate`` as products; None if it is not bilinear resizing to a size, or if products are slower."""
    if mode != "bilinear" or size is None or align_corners or antialias:
        return None
    size = (size, size) if isinstance(size, int) else tuple(size)
    return bilinear(input, size) if multiplications(input.shape[-2:], size) <= PRODUCT_LIMIT else None


def multiplications(cells: Sequence[int], size: Sequence[int]) -> float:
    """Multiplications per output value of `bilinear` from ``cells`` (h, w) to ``size`` (H, W), for both products."""
    return cells[1] * cells[0] / size[0] + _window(size[0], cells[0])[1]


def _window(length: int, cells: int) -> tuple[int, int]:
    """Pixel rows per window, and the most rows of cells that a window needs; all of both if windows save little."""
    fitting = [rows for rows in range(_ROWS // 4, 4 * _ROWS) if length % rows == 0]
    if not fitting:
        return length, cells
    rows = min(fitting, key=lambda rows: abs(math.log(rows / _ROWS)))
    ends = [
        (_centre(start, length, cells), _centre(start + rows - 1, length, cells)) for start in range(0, length, rows)
    ]
    touched = max(math.ceil(last) - math.floor(first) + 1 for first, last in ends)
    return (rows, touched) if 2 * touched <= cells else (length, cells)


def _centre(pixel: int, length: int, cells: int) -> float:
    """The position of a pixel in cells, clamped to the centres of the first and the last cell."""
    return min(max((pixel + 0.5) * (cells / length) - 0.5, 0.0), cells - 1.0)


def _centres(length: int, cells: int, like: Tensor) -> Tensor:
    """`_centre` of every pixel (length,), in float64."""
    pixel = torch.arange(length, device=like.device, dtype=torch.float64)
    return ((pixel + 0.5) * (cells / length) - 0.5).clamp(0, cells - 1)


def _weights(centre: Tensor, cell: Tensor) -> Tensor:
    """(..., pixels, cells): the weight of each of ``cell`` (..., cells) for the pixels at ``centre`` (..., pixels)."""
    return (1 - (centre.unsqueeze(-1) - cell.unsqueeze(-2)).abs()).clamp(min=0)


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): the weight of each pixel in each cell; rows sum to 1.

    The bounds are compared as integers, multiplied by ``cells``: floor and ceil of a quotient without a division.
    """
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    pixel = torch.arange(length, device=like.device).unsqueeze(0)
    inside = (((pixel + 1) * cells > cell * length) & (pixel * cells < (cell + 1) * length)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)
