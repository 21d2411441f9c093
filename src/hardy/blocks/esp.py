"""Efficient spatial pyramid: a reduction, five parallel dilated convolutions, partial sums of them, concatenation.

A 1x1 convolution reduces M channels to n = floor(N / 5). Five 3x3 convolutions with dilations 1, 2, 4, 8, 16 read
these. The output for dilation 4 is added to that for dilation 2, the output for 8 to this sum, and so on (hierarchical
feature fusion). This removes the grid pattern that large dilations cause. The output for dilation 1, that for dilation
2 and the three sums are concatenated to N channels. At stride 2 a 3x3 convolution with stride 2 replaces the 1x1
convolution.

Source: Mehta, Rastegari, Caspi, Shapiro and Hajishirzi, "ESPNet: efficient spatial pyramid of dilated convolutions for
semantic segmentation", ECCV 2018, section 3.1 and figure 1.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hardy.blocks.base import Cost, Costed, strided

__all__ = ["ESP"]

DILATIONS = (1, 2, 4, 8, 16)


class ESP(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``, with batch norm and PReLU at the end.

    Args:
        in_channels: C_in.
        out_channels: C_out, 5 or more.
        stride: 1, or 2 for the block that halves the map.
        residual: whether the input is added before the norm; needs stride 1 and C_in = C_out.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"efficient spatial pyramid": {}}

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, residual: bool = False) -> None:
        assert stride in (1, 2), f"stride {stride}: ESP has 1 or 2"
        assert not residual or (stride == 1 and in_channels == out_channels), "nothing to add: the shapes differ"
        super().__init__()
        first, narrow = _widths(out_channels)
        kernel = 1 if stride == 1 else 3
        self.residual = residual
        self.reduce = nn.Conv2d(in_channels, narrow, kernel, stride, kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, first if dilation == 1 else narrow, 3, 1, dilation, dilation, bias=False)
            for dilation in DILATIONS
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        reduced = self.reduce(x)
        filtered = [branch(reduced) for branch in self.branches]
        joined = filtered[:2]
        for wider in filtered[2:]:
            joined.append(joined[-1] + wider)
        y = torch.cat(joined, dim=1)
        activated: Tensor = self.act(self.norm(x + y if self.residual else y))
        return activated

    def draw(self) -> None:
        """Draw the weights of the convolutions, in place, so that the last sum has the variance of the input.

        No activation lies between them and the norm. So the variance of a weight is 1 / fan-in (LeCun et al.,
        "Efficient backprop", 1998, section 4.6), divided by 4 for the four convolutions whose outputs are summed.
        """
        for layer in (self.reduce, *self.branches):
            assert isinstance(layer, nn.Conv2d)
            summed = 1 if layer in (self.reduce, self.branches[0]) else len(DILATIONS) - 1
            nn.init.normal_(layer.weight, std=1 / math.sqrt(summed * layer.weight[0].numel()))

    @staticmethod
    def cost(in_channels: int, out_channels: int, size: tuple[int, int], *, stride: int = 1) -> Cost:
        """``M n + 9 n n_1 + 36 n^2`` weights with n = floor(N / 5), n_1 = N - 4 n; at stride 2 ``9 M n`` replaces
        ``M n``."""
        first, narrow = _widths(out_channels)
        weights = (1 if stride == 1 else 9) * in_channels * narrow
        weights += 9 * narrow * first + 36 * narrow**2
        return Cost(weights, weights * strided(size, stride))


def _widths(channels: int) -> tuple[int, int]:
    """The channels of the branch with dilation 1, and of each of the others."""
    narrow = channels // 5
    assert narrow > 0, f"{channels} channels cannot be split in five"
    return channels - 4 * narrow, narrow
