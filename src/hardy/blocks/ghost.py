"""Ghost module: a convolution computes some channels, and depthwise convolutions of these compute the others.

Source: Han, Wang, Tian, Guo, Xu and Xu, "GhostNet: more features from cheap operations", CVPR 2020, section 3.1.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hardy.blocks.base import Cost, Costed, strided
from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["Ghost"]


class Ghost(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: C_in.
        out_channels: C_out, a multiple of ``ratio``.
        kernel: side of the kernel of the convolution, odd.
        ratio: s; one channel in s is computed from all inputs.
        stride: of the convolution.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ghost": {}}

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int = 1, ratio: int = 2, stride: int = 1
    ) -> None:
        assert out_channels % ratio == 0, f"{out_channels} channels are not a multiple of the ratio {ratio}"
        super().__init__()
        few = out_channels // ratio
        self.primary = ConvNormAct(in_channels, few, kernel, stride=stride)
        self.cheap = ConvNormAct(few, few * (ratio - 1), groups=few)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        few = self.primary(x)
        return torch.cat([few, self.cheap(few)], dim=1)

    @staticmethod
    def cost(
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        *,
        kernel: int = 1,
        ratio: int = 2,
        stride: int = 1,
    ) -> Cost:
        """``K^2 M N / s + 9 (s - 1) N / s`` weights, each used once for every output cell."""
        few = out_channels // ratio
        weights = kernel**2 * in_channels * few + 9 * few * (ratio - 1)
        return Cost(weights, weights * strided(size, stride))
