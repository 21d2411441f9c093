"""Depthwise separable convolution: one 3x3 filter per channel, then a 1x1 convolution across channels.

Source: Howard et al., "MobileNets", arXiv:1704.04861, 2017, section 3.1 (with a ReLU after the depthwise part).
"""

from torch import nn

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["DepthwiseSeparable"]


class DepthwiseSeparable(nn.Sequential):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, stride=stride, groups=in_channels),
            ConvNormAct(in_channels, out_channels, kernel=1),
        )
