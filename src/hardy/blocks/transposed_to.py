"""Transposed convolution with stride 2 to a given size, so that its output fits an encoder's map at odd sizes too.

Encoders round half sizes up, so twice the side of a map can be one more than the side of the map before it. The extra
row or column is cropped. If an encoder rounds down, the missing row or column is filled with zeros.

Source: Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", CVPR 2010; the size is Hardy's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["TransposedTo", "fitted"]


class TransposedTo(nn.ConvTranspose2d):
    """``(B, C_in, h, w) -> (B, C_out, H, W)``; H and W are given with the map, about ``stride * h`` and ``stride * w``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: side of the kernel: 3, or 2 with stride 2.
        stride: 2, or 1 for a transposed convolution that keeps the size.
        bias: whether it has a bias.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 2, *, stride: int = 2, bias: bool = False
    ) -> None:
        assert kernel == 3 or kernel == stride == 2, f"kernel {kernel} with stride {stride}: no padding gives the size"
        margin = 1 if kernel == 3 else 0
        super().__init__(
            in_channels, out_channels, kernel, stride, margin, output_padding=margin * (stride - 1), bias=bias
        )

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The transposed convolution of ``x``, cropped or padded to ``output_size`` (H, W); unchanged without a
        size."""
        y: Tensor = super().forward(x)
        if output_size is None:
            return y
        return fitted(y, output_size)


def fitted(x: Tensor, size: Sequence[int]) -> Tensor:
    """``x`` (B, C, h, w) with ``size`` (H, W): cropped, or padded with zeros, at the right and the bottom."""
    height, width = size[-2:]
    if not torch.compiler.is_exporting() and (height, width) == tuple(x.shape[-2:]):
        return x  # in an exported graph this comparison would become a condition on its sizes
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
