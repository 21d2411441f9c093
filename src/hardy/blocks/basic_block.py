"""The basic residual block, before its last ReLU.

Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, figure 5 left.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.base import Cost, Costed, strided

__all__ = ["BasicBlock"]


class BasicBlock(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``, the sum without the ReLU after it.

    Parameters are named as in ImageNet checkpoints.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: of the first convolution. If it is not 1, or the width changes, the shortcut is a 1x1 convolution.
        dilation: of both convolutions.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"basic block": {}}

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        y = F.relu(self.bn1(self.conv1(x)))
        total: Tensor = self.bn2(self.conv2(y)) + self.downsample(x)
        return total

    @staticmethod
    def cost(in_channels: int, out_channels: int, size: tuple[int, int], *, stride: int = 1) -> Cost:
        """``9 M N + 9 N^2`` weights, and ``M N`` for the shortcut if the stride is not 1 or the width changes."""
        shortcut = in_channels * out_channels if stride != 1 or in_channels != out_channels else 0
        weights = 9 * in_channels * out_channels + 9 * out_channels**2 + shortcut
        return Cost(weights, weights * strided(size, stride))
