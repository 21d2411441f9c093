"""Depthwise separable convolution: one filter per channel, then a 1x1 convolution across channels.

Source: Howard et al., "MobileNets", arXiv:1704.04861, 2017, section 3.1, with a ReLU after the depthwise part too.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from hardy.blocks.base import Cost, Costed, strided
from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["DepthwiseSeparable"]


class DepthwiseSeparable(nn.Sequential, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: side of the depthwise filters, odd.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.
        mid_act: False leaves out the ReLU after the depthwise convolution.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"depthwise separable": {}}

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
        super().__init__(
            ConvNormAct(
                in_channels, in_channels, kernel, stride=stride, dilation=dilation, groups=in_channels, act=mid_act
            ),
            ConvNormAct(in_channels, out_channels, kernel=1),
        )

    @staticmethod
    def cost(in_channels: int, out_channels: int, size: tuple[int, int], *, kernel: int = 3, stride: int = 1) -> Cost:
        """``K^2 M + M N`` weights, each used once for every output cell; a convolution has ``K^2 M N``."""
        weights = kernel**2 * in_channels + in_channels * out_channels
        return Cost(weights, weights * strided(size, stride))
