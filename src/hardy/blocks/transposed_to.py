"""Transposed convolution with stride 2 to a given size, so that a map meets the one it was made from at odd sizes too.

Encoders round halves up, so twice the side of a map may be one more than that of the map before it: what a transposed
convolution makes beyond it is cut off. Where an encoder rounded down, zeros fill the missing row or column.

Source: Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", CVPR 2010; the size is Hardy's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["TransposedTo", "fitted"]


class TransposedTo(nn.ConvTranspose2d):
    """``(B, C_in, h, w) -> (B, C_out, H, W)``, H and W given with the map: 2h and 2w or about that.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: side of the kernel, 2 or 3.
        stride: 2, or 1 for a transposed convolution that keeps the size.
        bias: whether it has one.
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
        """``x`` at ``output_size`` (H, W); as large as the convolution makes it where no size is given."""
        y: Tensor = super().forward(x)
        if output_size is None:
            return y
        return fitted(y, output_size)


def fitted(x: Tensor, size: Sequence[int]) -> Tensor:
    """``x`` (B, C, h, w) with ``size`` (H, W): cut, or filled with zeros, on the right and below."""
    height, width = size[-2:]
    if not torch.compiler.is_exporting() and (height, width) == tuple(x.shape[-2:]):
        return x  # an exported graph must not carry the question as a bound on its sizes
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
