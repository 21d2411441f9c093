"""Asymmetric convolution: a K x 1 and then a 1 x K convolution in place of a K x K convolution.

It is cheaper only than a square kernel of the same K. For N input and N output channels, a pair with K = 5 has 10 N^2
weights, and a 3x3 convolution has 9 N^2.

Source: Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016, section 3.2.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from hardy.blocks.base import Cost, Costed, strided

__all__ = ["Asymmetric"]


class Asymmetric(nn.Sequential, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``: K x 1, then 1 x K, with norms and ReLUs.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: K, odd.
        stride: vertical in the first convolution, horizontal in the second.
        dilation: of both convolutions.
        mid_act: False leaves out batch norm and ReLU between the two.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "asymmetric of 3": {},
        "asymmetric of 5": {"kernel": 5},
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        mid_act: bool = True,
    ) -> None:
        assert kernel % 2 == 1, f"kernel {kernel} is even: no padding keeps the size"
        reach = dilation * (kernel - 1) // 2
        column = nn.Conv2d(in_channels, out_channels, (kernel, 1), (stride, 1), (reach, 0), (dilation, 1), bias=False)
        row = nn.Conv2d(out_channels, out_channels, (1, kernel), (1, stride), (0, reach), (1, dilation), bias=False)
        between = [nn.BatchNorm2d(out_channels), nn.ReLU()] if mid_act else []
        super().__init__(column, *between, row, nn.BatchNorm2d(out_channels), nn.ReLU())

    @staticmethod
    def cost(
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        *,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
    ) -> Cost:
        """``K M N + K N^2`` weights; the first convolution computes all columns, because only its rows are strided."""
        column, row = kernel * in_channels * out_channels, kernel * out_channels**2
        return Cost(column + row, column * strided((size[0], 1), stride) * size[1] + row * strided(size, stride))
