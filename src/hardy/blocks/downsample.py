"""Downsampling by a factor: the maximum or the mean of each cell, a strided convolution, or resizing.

Source: for strided convolutions in place of pooling Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for
simplicity: the all convolutional net", ICLR workshop 2015.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.base import Cost, Costed, strided
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.sizes import cells

__all__ = ["Downsample"]


class Downsample(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / factor), ceil(W / factor))``.

    Args:
        in_channels: C_in.
        out_channels: C_out; only ``"strided"`` can change the width.
        kind: ``"max"`` or ``"average"`` of each cell (cells at the right and bottom border may have fewer pixels);
            ``"strided"``, a 3x3 convolution with batch norm and ReLU; ``"bilinear"`` (half-pixel centres) or
            ``"nearest"`` resizing.
        factor: the ratio of the sides, in both directions.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "down, largest": {"kind": "max"},
        "down, strided": {"kind": "strided"},
        "down, bilinear": {"kind": "bilinear"},
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kind: Literal["max", "average", "strided", "bilinear", "nearest"] = "strided",
        factor: int = 2,
    ) -> None:
        assert kind == "strided" or in_channels == out_channels, f"{kind} keeps the number of channels"
        super().__init__()
        self.kind, self.factor = kind, factor
        self.conv = ConvNormAct(in_channels, out_channels, stride=factor) if kind == "strided" else None

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        if self.conv is not None:
            convolved: Tensor = self.conv(x)
            return convolved
        if self.kind == "max":
            return F.max_pool2d(x, self.factor, ceil_mode=True)
        if self.kind == "average":
            return F.avg_pool2d(x, self.factor, ceil_mode=True, count_include_pad=False)
        size = cells(x.shape[-2:], self.factor)
        if self.kind == "nearest":
            return F.interpolate(x, size, mode="nearest-exact")
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    @staticmethod
    def cost(
        in_channels: int, out_channels: int, size: tuple[int, int], *, kind: str = "strided", factor: int = 2
    ) -> Cost:
        """``9 M N`` weights for ``"strided"``, else none."""
        weights = 9 * in_channels * out_channels if kind == "strided" else 0
        return Cost(weights, weights * strided(size, factor))
