"""Pyramid pooling over grids that follow the aspect ratio of the map, for wide images.

The grids have 8, 4 and 2 rows. Their columns are chosen so that the cells are as square as the map allows. If that
number of columns ends in one half, it is rounded to the even number, as in the code published with the paper.

Source: Orsic, Kreso, Bevandic and Segvic, "In defense of pre-trained ImageNet architectures for real-time semantic
segmentation of road-driving images", CVPR 2019, section 3.1.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.norm_act_conv import NormActConv

__all__ = ["AspectPooling"]


class AspectPooling(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, H, W)``.

    Its batch norms have a momentum of 0.005, because they get few cells per image.

    Args:
        in_channels: C_in.
        width: C_out, 3 or more; each of the three grids gives a third of it, rounded down.
    """

    _rows = (8, 4, 2)
    _momentum = 0.005

    def __init__(self, in_channels: int, width: int) -> None:
        assert width >= len(self._rows), f"{width} channels are too few for {len(self._rows)} grids"
        super().__init__()
        level = width // len(self._rows)
        self.narrow = NormActConv(in_channels, width, momentum=self._momentum)
        self.levels = nn.ModuleList(NormActConv(width, level, momentum=self._momentum) for _ in self._rows)
        self.join = NormActConv(width + level * len(self._rows), width, momentum=self._momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        x = self.narrow(x)
        height, width = x.shape[-2:]
        levels = [x]
        for rows, conv in zip(self._rows, self.levels, strict=True):
            columns = cast(int, torch.sym_max(1, _nearest(rows * width, height)))
            level = conv(F.adaptive_avg_pool2d(x, (rows, columns)))
            levels.append(F.interpolate(level, size=(height, width), mode="bilinear", align_corners=False))
        joined: Tensor = self.join(torch.cat(levels, dim=1))
        return joined


def _nearest(over: int, under: int) -> int:
    """``over / under`` rounded to the nearest integer; halves are rounded to the even one.

    It uses integers and no branch, so that an exported graph can compute it.
    """
    doubled = 2 * over + under
    half_up = doubled // (2 * under)
    is_half = 1 - cast(int, torch.sym_min(1, doubled % (2 * under)))
    return half_up - is_half * (half_up % 2)
