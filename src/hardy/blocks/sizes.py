"""Heights and widths of maps, as numbers or as the symbols that `torch.export` uses for open sizes.

An exported graph must be correct at every size, so no decision may depend on the size of the example. And size
computations must not divide negative integers: ONNX rounds the quotient toward zero, Python rounds it down.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F

__all__ = ["cells", "has_size", "is_open", "nearest_multiples", "resize"]


def cells(size: Sequence[int], stride: int) -> tuple[int, int]:
    """(h, w) of a map of ``size`` (H, W), 1 or more each, after ``stride``; both are rounded up."""
    return (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1


def nearest_multiples(size: Sequence[int], multiple: int) -> tuple[int, int]:
    """The multiples of ``multiple``, 1 or more times it, that are nearest to the sides of ``size`` (H, W); of two the
    larger one."""
    height, width = size
    counts: list[Any] = [torch.sym_max(1, (side + multiple // 2) // multiple) for side in (height, width)]
    return multiple * counts[0], multiple * counts[1]


def is_open(x: Tensor) -> bool:
    """Whether `torch.export` leaves the height or width of ``x`` (B, C, h, w) open."""
    return any(isinstance(side, torch.SymInt) for side in x.shape[-2:])


def has_size(x: Tensor, size: Sequence[int]) -> bool:
    """Whether ``x`` (B, C, h, w) has ``size`` (H, W); for open sizes, whether it has this size in every case."""
    return all(statically_known_true(here == there) for here, there in zip(x.shape[-2:], size, strict=True))


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """``x`` (B, C, h, w) resized to ``size`` (H, W), bilinear with half-pixel centres, or with aligned corners; ``x``
    itself if it has that size."""
    if has_size(x, size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)
