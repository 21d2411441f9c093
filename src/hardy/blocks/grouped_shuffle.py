"""Grouped 3x3 convolution and channel shuffle; two of these in sequence connect every input with every output.

Source: Zhang, Zhou, Lin and Sun, "ShuffleNet", CVPR 2018, section 3.1.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from hardy.blocks.base import Cost, Costed
from hardy.blocks.channel_shuffle import ChannelShuffle
from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["GroupedShuffle"]


class GroupedShuffle(nn.Sequential, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: C_in, a multiple of ``groups``.
        out_channels: C_out, a multiple of ``groups``.
        groups: of the convolution and of the shuffle.
        stride: of the convolution.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"grouped and shuffled": {}}

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 8, stride: int = 1) -> None:
        super().__init__(ConvNormAct(in_channels, out_channels, stride=stride, groups=groups), ChannelShuffle(groups))

    @staticmethod
    def cost(in_channels: int, out_channels: int, size: tuple[int, int], *, groups: int = 8, stride: int = 1) -> Cost:
        """``9 M N / g`` weights, each used once for every output cell."""
        return ConvNormAct.cost(in_channels, out_channels, size, groups=groups, stride=stride)
