"""Attention refinement: each channel of a map is weighted, by weights computed from the averages over the image.

``y = ReLU(BN(conv3x3(x)))``, then ``y * sigmoid(BN(conv1x1(mean(y))))``.

Source: Yu, Wang, Peng, Gao, Yu and Sang, "BiSeNet: bilateral segmentation network for real-time semantic segmentation",
ECCV 2018, figure 2b.
"""

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.pooled_norm import PooledNorm

__all__ = ["AttentionRefinement"]


class AttentionRefinement(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, H, W)``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, out_channels)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels, out_channels, 1, bias=False),
            PooledNorm(out_channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        y: Tensor = self.conv(x)
        weighed: Tensor = y * self.attention(y)
        return weighed
