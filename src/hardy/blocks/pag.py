"""Pixel-attention-guided fusion: takes the context where detail and context are similar, else keeps the detail.

``s = sigmoid(sum_c f_x(x)_c up(f_y(y))_c)`` and ``out = (1 - s) x + s up(y)``, where f_x and f_y are a 1x1 convolution
with a batch norm and up() resizes to the size of x.

Source: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023, equations 5 and 6 and figure 5.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Pag"]


class Pag(nn.Module):
    """``x (B, C, H, W), y (B, C, h, w) -> (B, C, H, W)``. Parameters are named as in the authors' checkpoints.

    Args:
        channels: C.
        width: channels of f_x and f_y.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.f_x = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.f_y = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Shapes as above."""
        size = x.shape[-2:]
        likeness = self.f_x(x) * F.interpolate(self.f_y(y), size=size, mode="bilinear", align_corners=False)
        share = torch.sigmoid(likeness.sum(dim=1, keepdim=True))
        return (1 - share) * x + share * F.interpolate(y, size=size, mode="bilinear", align_corners=False)
