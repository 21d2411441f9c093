"""Pyramid pooling: averages over grids of several sizes, resized to the map and concatenated with it.

Source: Zhao et al., "Pyramid scene parsing network", CVPR 2017, section 3.2 and figure 3c.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.pooled_norm import PooledNorm

__all__ = ["PyramidPooling"]


class PyramidPooling(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, H, W)``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        grids: sides of the pooling grids; each branch has ``C_in // len(grids)`` channels.
        align_corners: enlarge the grids with aligned corners; False for half-pixel centres.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grids: Sequence[int] = (1, 2, 3, 6),
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        width = in_channels // len(grids)
        self.grids = tuple(grids)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), PooledNorm(width), nn.ReLU()) for _ in grids
        )
        self.join = ConvNormAct(in_channels + width * len(grids), out_channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above; H and W at least 1."""
        levels = [x]
        for grid, branch in zip(self.grids, self.branches, strict=True):
            level = branch(F.adaptive_avg_pool2d(x, grid))
            levels.append(F.interpolate(level, size=x.shape[-2:], mode="bilinear", align_corners=self.align_corners))
        joined: Tensor = self.join(torch.cat(levels, dim=1))
        return joined
