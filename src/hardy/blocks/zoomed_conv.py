"""Zoomed convolution: 3x3 convolutions on a map that is resized to half its size before and back after them.

Its receptive field has twice the side of a plain convolution's, at a quarter of the cost.

Source: Chen, Gong, Liu, Zhang, Li and Wang, "FasterSeg: searching for faster real-time semantic segmentation",
ICLR 2020, section 3.1 and figure 2.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["ZoomedConv"]


class ZoomedConv(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``; with ``published`` rounded down.

    Batch norm and ReLU follow each convolution; after the last batch norm the map is resized before the ReLU. At stride
    2 the map is not resized back. At stride 1 the small map has at least 2 cells along each side. So a graph that is
    traced with the smallest map also accepts larger ones, and a batch norm has several values.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        repeats: number of convolutions.
        stride: 1 or 2.
        published: as in the code published with the paper, round half of an odd side down, and resize maps with aligned
            corners.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, repeats: int = 1, stride: int = 1, published: bool = False
    ) -> None:
        assert stride in {1, 2}, f"stride {stride} is neither 1 nor 2"
        super().__init__()
        self.stride, self.published = stride, published
        widths = [in_channels, *[out_channels] * repeats]
        self.layers = nn.Sequential(
            *(ConvNormAct(widths[place], out_channels, act=place < repeats - 1) for place in range(repeats))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        size = x.shape[-2:]
        least = 2 if self.stride == 1 else 1
        small: Any = [torch.sym_max(least, (side + (0 if self.published else 1)) // 2) for side in size]
        y: Tensor = self.layers(F.interpolate(x, size=small, mode="bilinear", align_corners=self.published))
        if self.stride == 1:
            y = F.interpolate(y, size=size, mode="bilinear", align_corners=self.published)
        return F.relu(y)
