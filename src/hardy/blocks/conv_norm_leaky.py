"""A convolution without bias, a batch norm and a leaky ReLU, as in FANet.

Source: Hu, Perazzi, Heilbron, Wang, Lin, Saenko and Sclaroff, "Real-time semantic segmentation with fast attention",
IEEE Robotics and Automation Letters 2021, section III; the slope is that of the code published with it.
"""

from torch import nn

from hardy.blocks.pooled_norm import PooledNorm

__all__ = ["SLOPE", "ConvNormLeaky"]

SLOPE = 0.01
"""The slope of the leaky ReLU below 0."""


class ConvNormLeaky(nn.Sequential):
    """``(B, C_in, H, W) -> (B, C_out, H, W)``, for maps of one cell or more.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: side of the kernel, odd.
        padding: zeros around the map; None for the number that keeps its size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, padding: int | None = None) -> None:
        around = kernel // 2 if padding is None else padding
        conv = nn.Conv2d(in_channels, out_channels, kernel, padding=around, bias=False)
        super().__init__(conv, PooledNorm(out_channels), nn.LeakyReLU(SLOPE))
