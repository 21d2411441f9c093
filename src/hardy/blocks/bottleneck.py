"""Bottleneck: 1x1 convolution to fewer channels, 3x3 convolution, 1x1 convolution to more channels, sum, ReLU.

Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, figure 5 right; here the
3x3 convolution has the stride.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.base import Cost, Costed, strided
from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["Bottleneck"]


class Bottleneck(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        reduction: r; the 3x3 convolution works on ``C_out // r`` channels.
        stride: of the 3x3 convolution. If it is not 1, or the width changes, the shortcut is a 1x1 convolution.
        dilation: of the 3x3 convolution.
        act: False leaves out the last ReLU.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"bottleneck": {}}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        reduction: int = 4,
        stride: int = 1,
        dilation: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        narrow = out_channels // reduction
        self.act = act
        self.reduce = ConvNormAct(in_channels, narrow, kernel=1)
        self.filter = ConvNormAct(narrow, narrow, stride=stride, dilation=dilation)
        self.widen = ConvNormAct(narrow, out_channels, kernel=1, act=False)
        self.shortcut = (
            ConvNormAct(in_channels, out_channels, kernel=1, stride=stride, act=False)
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        total: Tensor = self.widen(self.filter(self.reduce(x))) + self.shortcut(x)
        return F.relu(total) if self.act else total

    @staticmethod
    def cost(
        in_channels: int, out_channels: int, size: tuple[int, int], *, reduction: int = 4, stride: int = 1
    ) -> Cost:
        """``M N / r`` weights before the stride, ``9 N^2 / r^2 + N^2 / r`` after it, and ``M N`` for a shortcut."""
        narrow = out_channels // reduction
        before, after = in_channels * narrow, 9 * narrow**2 + narrow * out_channels
        if stride != 1 or in_channels != out_channels:
            after += in_channels * out_channels
        return Cost(before + after, before * strided(size, 1) + after * strided(size, stride))
