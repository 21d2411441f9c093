"""Gather and expand: a 3x3 convolution, depthwise convolutions with six times as many channels, a 1x1 convolution.

The input is then added, and a ReLU follows.

Source: Yu, Gao, Wang, Yu, Shen and Sang, "BiSeNet V2: bilateral network with guided aggregation for real-time semantic
segmentation", IJCV 2021, section 4.2 and figure 5.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["GatherExpansion"]


class GatherExpansion(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``.

    At stride 1 there is one depthwise convolution, with a ReLU, and the input is added unchanged. At stride 2 there are
    two, of which the first has the stride and no ReLU, and the input goes through a depthwise separable convolution.

    Args:
        in_channels: C_in.
        out_channels: C_out; equal to C_in at stride 1.
        stride: 1 or 2.
        expansion: the depthwise convolutions have ``expansion * C_in`` channels.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, expansion: int = 6) -> None:
        assert stride == 2 or (stride == 1 and in_channels == out_channels), "at stride 1 the input itself is added"
        super().__init__()
        wide = expansion * in_channels
        self.gather = ConvNormAct(in_channels, in_channels)
        self.expand = nn.Sequential(ConvNormAct(in_channels, wide, stride=stride, groups=in_channels, act=stride == 1))
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.expand.append(ConvNormAct(wide, wide, groups=wide))
            self.shortcut = nn.Sequential(
                ConvNormAct(in_channels, in_channels, stride=2, groups=in_channels, act=False),
                ConvNormAct(in_channels, out_channels, kernel=1, act=False),
            )
        self.project = ConvNormAct(wide, out_channels, kernel=1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        return F.relu(self.project(self.expand(self.gather(x))) + self.shortcut(x))
