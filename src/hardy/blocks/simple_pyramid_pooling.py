"""Simple pyramid pooling: averages over grids of several sizes, resized to the map and added; then a 3x3 convolution.

It differs from the pyramid pooling of Zhao et al. (CVPR 2017): the levels have fewer channels, they are added and not
concatenated, and the map itself is not included.

Source: Peng et al., "PP-LiteSeg: a superior real-time semantic segmentation model", arXiv:2204.02681, 2022, section 3.4
and figure 4.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.pooled_norm import PooledNorm

__all__ = ["SimplePyramidPooling"]


class SimplePyramidPooling(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, H, W)``.

    Args:
        in_channels: C_in.
        out_channels: C_out, also the channels of each level.
        grids: sides of the pooling grids.
    """

    def __init__(self, in_channels: int, out_channels: int, grids: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(grid),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                PooledNorm(out_channels),
                nn.ReLU(),
            )
            for grid in grids
        )
        self.smooth = ConvNormAct(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above; H and W at least 1."""
        size = x.shape[-2:]
        levels = [F.interpolate(level(x), size=size, mode="bilinear", align_corners=False) for level in self.levels]
        total = levels[0]
        for level in levels[1:]:
            total = total + level
        smoothed: Tensor = self.smooth(total)
        return smoothed
