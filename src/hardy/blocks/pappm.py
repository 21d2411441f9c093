"""Parallel aggregation pyramid pooling: the scales of `DAPPM`, refined in parallel instead of in sequence.

``y_0 = C_1x1(x)`` and ``y_i = up(C_1x1(P_i(x))) + y_0``, where P_i averages over window i and up() resizes to the size
of x. One 3x3 convolution, with one group for each scale, refines all y_i together. The result is
``C_1x1([y_0, refined]) + C_1x1(x)``. Each C is a separate batch norm, ReLU and convolution.

Source: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023, section 3.2 and figure 6.
"""

import torch
from torch import Tensor, nn

from hardy.blocks.dappm import WINDOWS, scaled, unit

__all__ = ["PAPPM"]


class PAPPM(nn.Module):
    """``(B, C_in, h, w) -> (B, C_out, h, w)``, for maps of one cell or more; for small maps see `DAPPM`.

    Args:
        in_channels: C_in.
        width: channels of each scale.
        out_channels: C_out.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        count = len(WINDOWS) + 1
        self.narrow = unit(in_channels, width)
        self.scales = nn.ModuleList(unit(in_channels, width) for _ in range(count))
        self.refine = unit(width * count, width * count, kernel=3, groups=count)
        self.join = unit(width * (count + 1), out_channels)
        self.shortcut = unit(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        narrow = self.narrow(x)
        refined = self.refine(torch.cat([level + narrow for level in scaled(x, self.scales)], dim=1))
        joined: Tensor = self.join(torch.cat([narrow, refined], dim=1)) + self.shortcut(x)
        return joined
