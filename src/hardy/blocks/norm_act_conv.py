"""Batch norm, ReLU and convolution, in this order (pre-activation).

Source: He, Zhang, Ren and Sun, "Identity mappings in deep residual networks", ECCV 2016, figure 4e.
"""

from torch import nn

__all__ = ["NormActConv"]


class NormActConv(nn.Sequential):
    """``(B, C_in, H, W) -> (B, C_out, H, W)``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: side of the kernel, odd.
        bias: whether the convolution has a bias.
        momentum: momentum of the batch norm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, *, bias: bool = False, momentum: float = 0.1
    ) -> None:
        assert kernel % 2 == 1, f"kernel {kernel} is even: no padding keeps the size"
        super().__init__(
            nn.BatchNorm2d(in_channels, momentum=momentum),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias),
        )
