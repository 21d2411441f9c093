"""Inverted residual with a linear bottleneck: 1x1 expansion, depthwise convolution, 1x1 projection without activation.

Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, table 1; larger kernels:
Tan et al., "MnasNet: platform-aware neural architecture search for mobile", CVPR 2019.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from hardy.blocks.base import Cost, Costed, strided
from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["InvertedResidual"]


class InvertedResidual(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    The input is added if the stride is 1 and C_in = C_out.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: of the depthwise convolution.
        expansion: the depthwise convolution has ``expansion * C_in`` channels; None leaves out the expansion layer, so
            that it has C_in.
        kernel: side of the depthwise filters, odd.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"inverted residual": {}}

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, expansion: int | None = 6, kernel: int = 3
    ) -> None:
        super().__init__()
        wide = in_channels * (1 if expansion is None else expansion)
        self.residual = stride == 1 and in_channels == out_channels
        self.expand: nn.Module = nn.Identity() if expansion is None else ConvNormAct(in_channels, wide, kernel=1)
        self.depthwise = ConvNormAct(wide, wide, kernel, stride=stride, groups=wide)
        self.project = ConvNormAct(wide, out_channels, kernel=1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y

    @staticmethod
    def cost(
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        *,
        stride: int = 1,
        expansion: int | None = 6,
        kernel: int = 3,
    ) -> Cost:
        """``t M^2`` weights before the stride, 0 without an expansion layer; ``K^2 t M + t M N`` after it."""
        wide = in_channels * (1 if expansion is None else expansion)
        before = 0 if expansion is None else in_channels * wide
        after = kernel**2 * wide + wide * out_channels
        return Cost(before + after, before * strided(size, 1) + after * strided(size, stride))
