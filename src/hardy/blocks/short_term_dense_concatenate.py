"""Short-term dense concatenation: a sequence of convolutions with fewer and fewer channels, whose outputs are joined.

For N output channels, a 1x1 convolution computes N/2 of them, and three 3x3 convolutions in sequence compute N/4, N/8
and N/8. The four outputs are concatenated; each has a larger receptive field than the one before. At stride 2 a
depthwise convolution halves the map after the first convolution, and average pooling halves the first output.

Source: Fan, Lai, Huang, Wei, Chai, Luo and Wei, "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021,
section 3.1, figure 3 and table 1.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

__all__ = ["ShortTermDenseConcatenate", "conv_norm_act"]


def conv_norm_act(in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU, named as in the authors' checkpoints: ``conv``, ``bn``, ``relu``."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU()))


class ShortTermDenseConcatenate(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    Parameters are named as in the authors' ImageNet checkpoints.

    Args:
        in_channels: C_in.
        out_channels: C_out, a multiple of 8.
        stride: 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        assert out_channels % 8 == 0, f"{out_channels} channels are not a multiple of 8"
        assert stride in {1, 2}, f"stride {stride} is neither 1 nor 2"
        super().__init__()
        half, quarter, eighth = (out_channels // part for part in (2, 4, 8))
        shapes = ((in_channels, half, 1), (half, quarter, 3), (quarter, eighth, 3), (eighth, eighth, 3))
        self.conv_list = nn.ModuleList(conv_norm_act(*shape) for shape in shapes)
        self.avd_layer: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            depthwise = nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False)
            self.avd_layer = nn.Sequential(depthwise, nn.BatchNorm2d(half))
            self.skip = nn.AvgPool2d(3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        x = self.conv_list[0](x)
        kept = [self.skip(x)]
        x = self.avd_layer(x)
        for conv in self.conv_list[1:]:
            x = conv(x)
            kept.append(x)
        return torch.cat(kept, dim=1)
