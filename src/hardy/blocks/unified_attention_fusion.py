"""Unified attention fusion: a weighted sum of two maps of equal width, with one weight for each cell.

``a y + (1 - a) x`` with ``a = sigmoid(f([mean x, max x, mean y, max y]))``. Means and maxima are over the channels, and
f is two 3x3 convolutions (spatial attention). The coarser map y is resized to x.

Source: Peng et al., "PP-LiteSeg: a superior real-time semantic segmentation model", arXiv:2204.02681, 2022, section 3.3
and equations 1 and 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["UnifiedAttentionFusion"]


class UnifiedAttentionFusion(nn.Module):
    """``x (B, C, H, W), y (B, C, h, w) -> (B, C_out, H, W)``; the last layer is a 3x3 convolution.

    Args:
        channels: C of both maps.
        out_channels: C_out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(ConvNormAct(4, 2), ConvNormAct(2, 1, act=False), nn.Sigmoid())
        self.smooth = ConvNormAct(channels, out_channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Shapes as above: ``x`` is the finer map, ``y`` the coarser."""
        y = F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        pooled = [of for each in (x, y) for of in (each.mean(1, keepdim=True), each.amax(1, keepdim=True))]
        share = self.attention(torch.cat(pooled, dim=1))
        fused: Tensor = self.smooth(share * y + (1 - share) * x)
        return fused
