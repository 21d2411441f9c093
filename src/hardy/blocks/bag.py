"""Boundary-attention-guided fusion: detail at boundaries, context elsewhere, then a 3x3 convolution.

``out = C(sigmoid(d) p + (1 - sigmoid(d)) i)`` with detail p, context i, boundary d, and C a batch norm, a ReLU and a
3x3 convolution.

Source: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023, equation 7 and figure 7.
"""

import torch
from torch import Tensor, nn

from hardy.blocks.norm_act_conv import NormActConv

__all__ = ["Bag"]


class Bag(nn.Module):
    """``detail, context, boundary (B, C, H, W) -> (B, C, H, W)``.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = NormActConv(channels, channels, kernel=3)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """Shapes as above."""
        share = torch.sigmoid(boundary)
        mixed: Tensor = self.mix(share * detail + (1 - share) * context)
        return mixed
