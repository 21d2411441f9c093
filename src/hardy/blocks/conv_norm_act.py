"""Convolution, batch norm and, by default, ReLU.

With ``groups`` each group of outputs reads only its group of inputs; as many groups as channels is a depthwise
convolution. With ``dilation`` d the kernel covers d (K - 1) + 1 cells.

Source: Ioffe and Szegedy, "Batch normalization", ICML 2015; dilation: Yu and Koltun, "Multi-scale context aggregation
by dilated convolutions", ICLR 2016; groups: Krizhevsky, Sutskever and Hinton, NeurIPS 2012, section 3.2.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from hardy.blocks.base import Cost, Costed, strided

__all__ = ["ConvNormAct"]


class ConvNormAct(nn.Sequential, Costed):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``; the convolution has no bias.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: side of the kernel, odd; the padding keeps the size at stride 1.
        stride: of the convolution.
        dilation: of the convolution.
        groups: of the convolution.
        act: False leaves out the ReLU.
        padding: zeros around the map; None for the number that keeps its size at stride 1.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "3x3 convolution": {},
        "1x1 convolution": {"kernel": 1},
        "dilated by 4": {"dilation": 4},
        "8 groups": {"groups": 8},
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: bool = True,
        padding: int | None = None,
    ) -> None:
        assert kernel % 2 == 1, f"kernel {kernel} is even: no padding keeps the size"
        widths = f"{in_channels} or {out_channels} channels are not a multiple of {groups} groups"
        assert in_channels % groups == out_channels % groups == 0, widths
        around = dilation * (kernel - 1) // 2 if padding is None else padding
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel, stride, around, dilation, groups, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        super().__init__(*layers, *([nn.ReLU()] if act else []))

    @staticmethod
    def cost(
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        *,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> Cost:
        """``K^2 M N / g`` weights, each used once for every output cell; ``dilation`` does not change the cost."""
        weights = kernel**2 * in_channels * out_channels // groups
        return Cost(weights, weights * strided(size, stride))
