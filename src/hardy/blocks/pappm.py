"""Parallel aggregation pyramid pooling: the scales of `DAPPM`, refined side by side instead of one after the other.

With U_0 = x narrowed, P_i the average over window i, and up() back to the size of x: ``y_i = up(C_1x1(P_i(x))) + U_0``,
one 3x3 convolution in as many groups as there are scales refines all y_i at once, and the result is
``C_1x1([U_0, refined]) + C_1x1(x)``, every C a batch norm, a ReLU and a convolution.

Source: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023, section 3.2 and figure 6.
"""

import torch
from torch import Tensor, nn

from hardy.blocks.dappm import WINDOWS, scaled, unit

__all__ = ["PAPPM"]


class PAPPM(nn.Module):
    """``(B, C_in, h, w) -> (B, C_out, h, w)``, for maps from one cell up; on small maps as `DAPPM`.

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
