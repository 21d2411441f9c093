"""Light boundary-attention-guided fusion: like `Bag`, with two 1x1 convolutions instead of one 3x3 convolution.

``out = C_p((1 - sigmoid(d)) i + p) + C_i(i + sigmoid(d) p)`` with detail p, context i, boundary d, and each C a 1x1
convolution and a batch norm.

Source: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023, equation 8 and figure 7.
"""

import torch
from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["LightBag"]


class LightBag(nn.Module):
    """``detail, context, boundary (B, C, H, W) -> (B, C, H, W)``.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = ConvNormAct(channels, channels, kernel=1, act=False)
        self.context = ConvNormAct(channels, channels, kernel=1, act=False)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """Shapes as above."""
        share = torch.sigmoid(boundary)
        mixed: Tensor = self.detail((1 - share) * context + detail) + self.context(context + share * detail)
        return mixed
