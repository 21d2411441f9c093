"""Deep aggregation pyramid pooling: averages over larger and larger windows, each combined with the one before it.

``y_0 = C_1x1(x)``, ``y_i = C_3x3(up(C_1x1(P_i(x))) + y_{i-1})``, and the result is
``C_1x1([y_0, ..., y_n]) + C_1x1(x)``. P_i averages over window i, up() resizes to the size of x, and each C is a
separate batch norm, ReLU and convolution. The last window is the full map.

Source: Hong, Pan, Sun and Jia, "Deep dual-resolution networks for real-time and accurate semantic segmentation of road
scenes", arXiv:2101.06085, 2021, equation 4 and figure 5.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.open_size import resized_from_wider
from hardy.blocks.pooled_norm import PooledNorm
from hardy.blocks.sizes import is_open

__all__ = ["DAPPM", "WINDOWS", "open_scale", "scaled", "unit"]

WINDOWS = ((5, 2), (9, 4), (17, 8))
"""(side, stride) in cells of the averaging windows; the map is padded by half a window."""


class DAPPM(nn.Module):
    """``(B, C_in, h, w) -> (B, C_out, h, w)``, for maps of one cell or more.

    Cells of padding count as zeros in an average, as in the published networks. So averages are small on a map that is
    smaller than the window, and the batch norm after them learns their scale. If the average of a batch has a single
    value per channel, it is normalised by the running statistics (`PooledNorm`).

    Args:
        in_channels: C_in.
        width: channels of each scale.
        out_channels: C_out.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = unit(in_channels, width)
        self.scales = nn.ModuleList(unit(in_channels, width) for _ in range(len(WINDOWS) + 1))
        self.refine = nn.ModuleList(unit(width, width, kernel=3) for _ in range(len(WINDOWS) + 1))
        self.join = unit(width * (len(WINDOWS) + 2), out_channels)
        self.shortcut = unit(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        levels = [self.narrow(x)]
        for level, refine in zip(scaled(x, self.scales), self.refine, strict=True):
            levels.append(refine(level + levels[-1]))
        joined: Tensor = self.join(torch.cat(levels, dim=1)) + self.shortcut(x)
        return joined


def scaled(x: Tensor, scales: Iterable[nn.Module]) -> Iterator[Tensor]:
    """``up(scale_i(P_i(x)))`` for each of ``scales``: the windows of `WINDOWS`, then the full map.

    Args:
        x: (B, C, h, w).
        scales: modules that map an average (B, C, h', w') to a map of the same size.
    """
    *windowed, full = scales
    for scale, (side, stride) in zip(windowed, WINDOWS, strict=True):
        if is_open(x):
            yield open_scale(x, scale, side, stride)
        else:
            average = F.avg_pool2d(x, side, stride, side // 2)
            yield F.interpolate(scale(average), size=x.shape[-2:], mode="bilinear", align_corners=False)
    yield full(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:])


def open_scale(x: Tensor, scale: nn.Module, side: int, stride: int) -> Tensor:
    """One scale as `scaled` computes it, for use while `torch.export` leaves the size of ``x`` open.

    The average has one cell more than needed along each axis. So no axis has size 1, which would become a constant.

    Args:
        x: (B, C, h, w).
        scale: maps the average (B, C, h', w') to a map of the same size.
        side: side of the window, in cells.
        stride: stride of the window, in cells.
    """
    average = F.avg_pool2d(F.pad(x, (0, stride, 0, stride)), side, stride, side // 2)
    return resized_from_wider(scale(average), x.shape[-2:])


def unit(in_channels: int, out_channels: int, kernel: int = 1, *, groups: int = 1) -> nn.Sequential:
    """Batch norm, ReLU and convolution, for maps that may have a single cell."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(PooledNorm(in_channels), nn.ReLU(), conv)
