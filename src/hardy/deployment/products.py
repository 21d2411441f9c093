"""Pooling and resizing as matrix products, the form in which a graph of fixed size holds them.

Adaptive average pooling is ``P_h x P_w^T``: row i of P (cells, length) holds 1 / n at the n pixels of cell i, those
from ``floor(i * length / cells)`` to ``ceil((i + 1) * length / cells) - 1``. That is the operator's own definition. The
exporter's way, a gather per cell, takes a hundred nodes for a pyramid whose cells do not divide the map, and at a
dynamic size the example's indices stay in the graph: at another size it fails or is wrong.

Bilinear resizing is ``R_h x R_w^T``: row i of R (length, cells) holds the two weights of the cells between which pixel
i lies. Almost all of R_h is zeros where there are many cells, so that product is taken in windows: so many rows of
pixels at once, with the few rows of cells that they touch.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["PRODUCT_LIMIT", "Products", "adaptive_mean", "bilinear", "multiplications"]

PRODUCT_LIMIT = 64
"""The multiplications for each value up to which bilinear resizing is written as products, and not as ONNX's Resize.

``benchmarks/epilogue.py`` times both forms.
"""

_ROWS = 32
"""About so many rows of pixels are made at once: fewer pay for more calls, more for more zeros."""


class Products(TorchFunctionMode):
    """Inside this context `torch.nn.functional`'s ``adaptive_avg_pool2d`` and bilinear ``interpolate`` are products.

    Args:
        resizing: whether ``interpolate`` is one where that pays; the product holds the sizes, which must not be open.
    """

    def __init__(self, *, resizing: bool) -> None:
        super().__init__()
        self.resizing = resizing

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The product, or what ``func`` returns."""
        given, made = kwargs or {}, None
        if func is F.adaptive_avg_pool2d:
            made = _pooled(*args, **given)
        elif func is F.interpolate and self.resizing:
            made = _resized(*args, **given)
        return func(*args, **given) if made is None else made


def adaptive_mean(x: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling of ``x`` (B, C, H, W) to ``size`` (h, w) cells, as matrix products."""
    if tuple(size) == (1, 1):
        return x.mean((-2, -1), keepdim=True)
    return _shares(x.shape[-2], size[0], x) @ x @ _shares(x.shape[-1], size[1], x).T


def bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """``x`` (B, C, h, w) resized to ``size`` (H, W) bilinearly with half-pixel centres, as matrix products."""
    cells, length = x.shape[-2], size[0]
    wide = x @ _weights(_centres(size[1], x.shape[-1], x), torch.arange(x.shape[-1], device=x.device)).to(x.dtype).T
    rows, touched = _window(length, cells)
    centre = _centres(length, cells, x).view(-1, rows)  # (windows, rows)
    first = centre[:, 0].floor().clamp(max=cells - touched).long()
    inside = first.unsqueeze(1) + torch.arange(touched, device=x.device)  # (windows, cells touched)
    weights = _weights(centre, inside).to(x.dtype)
    if len(centre) == 1:
        return weights[0] @ wide
    parts = wide.index_select(-2, inside.flatten()).unflatten(-2, (len(centre), touched))
    made: Tensor = (weights @ parts).flatten(-3, -2)
    return made


def _pooled(input: Tensor, output_size: Any) -> Tensor | None:
    """``F.adaptive_avg_pool2d`` as products; None where a side stays as it is."""
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
    """``F.interpolate`` as products; None where it is no bilinear resizing to a size, or they do not pay."""
    if mode != "bilinear" or size is None or align_corners or antialias:
        return None
    size = (size, size) if isinstance(size, int) else tuple(size)
    return bilinear(input, size) if multiplications(input.shape[-2:], size) <= PRODUCT_LIMIT else None


def multiplications(cells: Sequence[int], size: Sequence[int]) -> float:
    """Of both products of `bilinear` from ``cells`` (h, w) to ``size`` (H, W), for each value that is made."""
    return cells[1] * cells[0] / size[0] + _window(size[0], cells[0])[1]


def _window(length: int, cells: int) -> tuple[int, int]:
    """How many rows of pixels are made at once, and the most rows of cells that they touch; all of both where windows
    would save little."""
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
    """Where among the cells a pixel lies; outside their centres at the nearest."""
    return min(max((pixel + 0.5) * (cells / length) - 0.5, 0.0), cells - 1.0)


def _centres(length: int, cells: int, like: Tensor) -> Tensor:
    """`_centre` of every pixel (length,), in float64."""
    pixel = torch.arange(length, device=like.device, dtype=torch.float64)
    return ((pixel + 0.5) * (cells / length) - 0.5).clamp(0, cells - 1)


def _weights(centre: Tensor, cell: Tensor) -> Tensor:
    """(..., pixels, cells): what each of ``cell`` (..., cells) gives to the pixels at ``centre`` (..., pixels)."""
    return (1 - (centre.unsqueeze(-1) - cell.unsqueeze(-2)).abs()).clamp(min=0)


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): the share each pixel has in each cell; rows sum to 1.

    The bounds are compared in integers times ``cells``: floor and ceil of a quotient without dividing.
    """
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    pixel = torch.arange(length, device=like.device).unsqueeze(0)
    inside = (((pixel + 1) * cells > cell * length) & (pixel * cells < (cell + 1) * length)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)
