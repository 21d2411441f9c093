"""Non-bottleneck-1D: a residual block of two pairs of asymmetric convolutions, the second pair dilated.

Source: Romera, Alvarez, Bergasa and Arroyo, "ERFNet: efficient residual factorized ConvNet for real-time semantic
segmentation", IEEE T-ITS 2018, figure 2c.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.base import Cost, Costed

__all__ = ["NonBottleneck1D"]


class NonBottleneck1D(nn.Module, Costed):
    """``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        in_channels: C.
        out_channels: C, equal to ``in_channels``.
        kernel: K, odd.
        dilation: of the second pair.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"non-bottleneck-1D": {}}

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 3, dilation: int = 1) -> None:
        assert in_channels == out_channels, f"{in_channels} channels in and {out_channels} out: the input is added"
        assert kernel % 2 == 1, f"kernel {kernel} is even: no padding keeps the size"
        super().__init__()
        self.near = _pair(in_channels, kernel, 1)
        self.far = _pair(in_channels, kernel, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        return F.relu(x + self.far(F.relu(self.near(x))))

    @staticmethod
    def cost(in_channels: int, out_channels: int, size: tuple[int, int], *, kernel: int = 3, dilation: int = 1) -> Cost:
        """``4 K N^2`` weights, each used once for every cell."""
        weights = 4 * kernel * in_channels * out_channels
        return Cost(weights, weights * size[0] * size[1])


def _pair(channels: int, kernel: int, dilation: int) -> nn.Sequential:
    """K x 1, ReLU, 1 x K, batch norm."""
    reach = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(channels, channels, (kernel, 1), 1, (reach, 0), (dilation, 1), bias=False),
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, kernel), 1, (0, reach), (1, dilation), bias=False),
        nn.BatchNorm2d(channels),
    )
