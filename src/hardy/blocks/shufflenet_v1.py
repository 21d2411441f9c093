"""The unit of ShuffleNet V1: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; then a sum or a concatenation.

Source: Zhang, Zhou, Lin and Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices",
CVPR 2018, figure 2b and 2c.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.base import Cost, Costed, strided
from hardy.blocks.channel_shuffle import ChannelShuffle
from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["ShuffleNetV1"]


class ShuffleNetV1(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    With stride 1 the input is added, and C_in = C_out. With stride 2 the averages of the input over 3x3 cells are the
    first C_in channels of the result. A ReLU follows in both cases; there is none after the depthwise convolution.

    Args:
        in_channels: C_in.
        out_channels: C_out; the inner convolutions have a quarter of it.
        groups: g, of the 1x1 convolutions.
        stride: 1 or 2.
        first_grouped: False for the first unit of a network, whose input has too few channels for groups.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ShuffleNet V1 unit": {}}

    def __init__(
        self, in_channels: int, out_channels: int, *, groups: int = 8, stride: int = 1, first_grouped: bool = True
    ) -> None:
        assert stride == 2 or in_channels == out_channels, "stride 1 needs equal in_channels and out_channels"
        super().__init__()
        self.stride = stride
        mid, rest = out_channels // 4, out_channels - (in_channels if stride == 2 else 0)
        assert rest > 0, f"{out_channels} output channels leave none beside the {in_channels} averages"
        self.reduce = ConvNormAct(in_channels, mid, kernel=1, groups=groups if first_grouped else 1)
        self.shuffle = ChannelShuffle(groups)
        self.depthwise = ConvNormAct(mid, mid, stride=stride, groups=mid, act=False)
        self.widen = ConvNormAct(mid, rest, kernel=1, groups=groups, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        y = self.widen(self.depthwise(self.shuffle(self.reduce(x))))
        if self.stride == 1:
            return F.relu(x + y)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], dim=1))

    @staticmethod
    def cost(in_channels: int, out_channels: int, size: tuple[int, int], *, groups: int = 8, stride: int = 1) -> Cost:
        """``M N / (4 g)`` weights before the stride, ``9 N / 4 + N R / (4 g)`` after it; R = N, or N - M at stride 2.

        For a unit with ``first_grouped``.
        """
        mid, rest = out_channels // 4, out_channels - (in_channels if stride == 2 else 0)
        before, after = in_channels * mid // groups, 9 * mid + mid * rest // groups
        return Cost(before + after, before * strided(size, 1) + after * strided(size, stride))
