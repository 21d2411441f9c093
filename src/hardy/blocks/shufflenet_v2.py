"""The unit of ShuffleNet V2: half of the channels passes unchanged, the other half is filtered; then a shuffle.

Source: Ma, Zhang, Zheng and Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture design", ECCV
2018, figure 3c and 3d.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hardy.blocks.base import Cost, Costed, strided
from hardy.blocks.channel_shuffle import ChannelShuffle
from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["ShuffleNetV2"]


class ShuffleNetV2(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``; C_in and C_out are even.

    With stride 1 the first half passes unchanged, and C_in = C_out. With stride 2 both branches read all inputs.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: 1 or 2.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ShuffleNet V2 unit": {}}

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        assert stride == 2 or in_channels == out_channels, "stride 1 needs equal in_channels and out_channels"
        assert in_channels % 2 == out_channels % 2 == 0, f"{in_channels} or {out_channels} channels are odd"
        super().__init__()
        half, seen = out_channels // 2, in_channels if stride == 2 else in_channels // 2
        self.passing = (
            nn.Sequential(ConvNormAct(seen, seen, stride=2, groups=seen, act=False), ConvNormAct(seen, half, kernel=1))
            if stride == 2
            else nn.Identity()
        )
        self.filtered = nn.Sequential(
            ConvNormAct(seen, half, kernel=1),
            ConvNormAct(half, half, stride=stride, groups=half, act=False),
            ConvNormAct(half, half, kernel=1),
        )
        self.stride = stride
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        first, second = (x, x) if self.stride == 2 else x.chunk(2, dim=1)
        shuffled: Tensor = self.shuffle(torch.cat([self.passing(first), self.filtered(second)], dim=1))
        return shuffled

    @staticmethod
    def cost(in_channels: int, out_channels: int, size: tuple[int, int], *, stride: int = 1) -> Cost:
        """``N^2 / 2 + 9 N / 2`` weights; with stride 2 ``9 M + M N + 9 N / 2 + N^2 / 4``, of which ``M N / 2`` come
        before the stride."""
        half = out_channels // 2
        if stride == 1:
            weights = 2 * half**2 + 9 * half
            return Cost(weights, weights * strided(size, 1))
        before, after = in_channels * half, 9 * in_channels + in_channels * half + 9 * half + half**2
        return Cost(before + after, before * strided(size, 1) + after * strided(size, 2))
