"""The attention of timm's EfficientFormers at any image size: its position biases are resized to the map.

timm's modules have layers and biases for one image size. The modules here take over their layers, under the same
names, and compute the same at that size. In evaluation mode the biases of the last size are cached.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.efficientformer import Attention
from timm.models.efficientformer_v2 import Attention2d, Attention2dDownsample
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.ops.relative_bias import relative_biases

__all__ = ["AnySizeAttention", "AnySizeAttention2d", "AnySizeDownsample"]

Biased = Attention | Attention2d | Attention2dDownsample


class AnySizeAttention(Attention):
    """``(B, h, w, C) -> (B, h, w, C)``: every cell attends to every cell.

    Args:
        trained: the timm module whose layers it takes over.
        grid: (rows, columns) of cells on which its biases were trained.
    """

    def __init__(self, trained: Attention, grid: tuple[int, int] = (7, 7)) -> None:
        _take_over(self, trained)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        size = x.shape[1:3]
        rows = self.qkv(x.flatten(1, 2)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        query, key, value = rows.split([self.key_dim, self.key_dim, self.val_dim], dim=3)
        attention = (query @ key.mT) * self.scale + _biases(self, self.grid, size)
        answer = (attention.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        y: Tensor = self.proj(answer).unflatten(1, size)
        return y


class AnySizeAttention2d(Attention2d):
    """``(B, C, h, w) -> (B, C, h, w)``: every cell attends to every cell, in strided blocks on a map of half the size;
    the heads are mixed before and after the softmax.

    Args:
        trained: the timm module whose layers it takes over.
    """

    def __init__(self, trained: Attention2d) -> None:
        _take_over(self, trained)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        size = x.shape[-2:]
        if self.stride_conv is not None:
            x = self.stride_conv(x)
        query, key, value = self.q(x), self.k(x), self.v(x)
        attention = _products(self, query, key) + _biases(self, self.resolution, x.shape[-2:])
        attention = self.talking_head2(self.talking_head1(attention).softmax(dim=-1))
        y = _answer(self, attention, value, x.shape[-2:]) + self.v_local(value)
        if self.stride_conv is not None:
            y = F.interpolate(y, size=size, mode="bilinear", align_corners=False)
        out: Tensor = self.proj(self.act(y))
        return out


class AnySizeDownsample(Attention2dDownsample):
    """``(B, C_in, h, w) -> (B, C_out, ceil(h / 2), ceil(w / 2))``: queries at stride 2 attend to all cells.

    Args:
        trained: the timm module whose layers it takes over.
    """

    def __init__(self, trained: Attention2dDownsample) -> None:
        _take_over(self, trained)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        query, key, value = self.q(x), self.k(x), self.v(x)
        attention = _products(self, query, key) + _biases(self, self.resolution, x.shape[-2:], stride=2)
        y = _answer(self, attention.softmax(dim=-1), value, query.shape[-2:]) + self.v_local(value)
        out: Tensor = self.proj(self.act(y))
        return out


def _take_over(module: Biased, trained: Biased) -> None:
    """Give ``module`` all attributes of ``trained`` except the table of distances for one size, in place."""
    nn.Module.__init__(module)
    vars(module).update(vars(trained))
    del module.attention_bias_idxs


def _biases(module: Biased, trained: Any, grid: Sequence[int], stride: int = 1) -> Tensor:
    """(heads, queries, keys) on a ``grid`` of (rows, columns), resized from the ``trained`` grid. Cached for the next
    map of that size, but not in training, with gradients, while traced, or after the biases changed.

    As in timm, the cache is cleared when ``module`` moves to another device or changes mode.
    """
    table = module.attention_biases
    if module.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return relative_biases(table, trained, grid, stride)
    key = f"{tuple(grid)} {id(table)} {table._version} {table.device}"
    if key not in module.attention_bias_cache:
        module.attention_bias_cache = {key: relative_biases(table, trained, grid, stride)}
    cached: Tensor = module.attention_bias_cache[key]
    return cached


def _products(module: Attention2d | Attention2dDownsample, query: Tensor, key: Tensor) -> Tensor:
    """Scaled products of queries and keys, (B, heads, queries, keys)."""
    query, key = (x.unflatten(1, (module.num_heads, -1)).flatten(3) for x in (query, key))
    products: Tensor = (query.mT @ key) * module.scale
    return products


def _answer(
    module: Attention2d | Attention2dDownsample, attention: Tensor, value: Tensor, size: Sequence[int]
) -> Tensor:
    """The weighted sum of the values as a map (B, C, h, w) of ``size``."""
    answer = value.unflatten(1, (module.num_heads, -1)).flatten(3) @ attention.mT
    as_map: Tensor = answer.flatten(1, 2).unflatten(2, tuple(size))
    return as_map
