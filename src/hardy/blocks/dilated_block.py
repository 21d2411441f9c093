"""The D block: a bottleneck of constant width, whose grouped 3x3 convolution has two dilations.

Half of the channels is filtered with one dilation, the other half with another. Squeeze and excitation weights them.

Source: Gao, "Rethink dilated convolution for real-time semantic segmentation", arXiv:2111.09957, 2021, figure 2; it is
the Y block of Radosavovic et al., "Designing network design spaces", CVPR 2020, with a second dilation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.squeeze_excitation import SqueezeExcitation

__all__ = ["DilatedBlock"]


class DilatedBlock(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        dilations: one or two; the channels are split into as many parts, and each part has one of them.
        squeezed: channels between the two layers of squeeze and excitation.
        stride: 1 or 2; with 2 the shortcut first averages over 2x2 cells.
        group_width: channels of each group of the 3x3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilations: Sequence[int],
        squeezed: int,
        *,
        stride: int = 1,
        group_width: int = 16,
    ) -> None:
        super().__init__()
        part = out_channels // len(dilations)
        self.spread = ConvNormAct(in_channels, out_channels, kernel=1)
        self.filters = nn.ModuleList(
            nn.Conv2d(part, part, 3, stride, dilation, dilation, part // group_width, bias=False)
            for dilation in dilations
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.weigh = SqueezeExcitation(out_channels, squeezed)
        self.join = ConvNormAct(out_channels, out_channels, kernel=1, act=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = ConvNormAct(in_channels, out_channels, kernel=1, act=False)
            self.shortcut = shortcut if stride == 1 else nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        parts = self.spread(x).chunk(len(self.filters), dim=1)
        y = torch.cat([layer(part) for layer, part in zip(self.filters, parts, strict=True)], dim=1)
        y = self.join(self.weigh(F.relu(self.norm(y))))
        return F.relu(y + self.shortcut(x))
