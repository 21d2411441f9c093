"""Convolution, batch norm and, unless told otherwise, ReLU."""

from torch import nn

__all__ = ["ConvNormAct"]


class ConvNormAct(nn.Sequential):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``; the convolution has no bias.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: side of the kernel, odd; the padding keeps the size at stride 1.
        stride: of the convolution.
        dilation: of the convolution.
        groups: of the convolution.
        act: False leaves out the ReLU.
    """

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
    ) -> None:
        assert kernel % 2 == 1, f"kernel {kernel} is even: no padding keeps the size"
        padding = dilation * (kernel - 1) // 2
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        super().__init__(*layers, *([nn.ReLU()] if act else []))
