"""Squeeze and excitation: each channel is multiplied by a weight that is computed from the means of all channels.

``x * sigmoid(W_2 ReLU(W_1 mean(x) + b_1) + b_2)``.

Source: Hu, Shen and Sun, "Squeeze-and-excitation networks", CVPR 2018, equations 2 to 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SqueezeExcitation"]


class SqueezeExcitation(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        channels: C.
        width: channels between the two layers.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, width, 1)
        self.excite = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        weights = self.excite(F.relu(self.squeeze(x.mean((-2, -1), keepdim=True))))
        return x * torch.sigmoid(weights)
