"""A bottleneck whose last convolution doubles the width, without the last ReLU; used at the end of a branch.

Source: Hong, Pan, Sun and Jia, "Deep dual-resolution networks for real-time and accurate semantic segmentation of road
scenes", arXiv:2101.06085, 2021, section 3.2; the block is that of He et al., CVPR 2016, figure 5 right, with an
expansion of 2.
"""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DoubleBottleneck"]


class DoubleBottleneck(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))``, the sum without the ReLU after it.

    Its 3x3 convolution has ``C_out / 2`` channels. Parameters are named as in ImageNet checkpoints.

    Args:
        in_channels: C_in.
        out_channels: C_out, even.
        stride: of the 3x3 convolution. If it is not 1, or the width changes, the shortcut is a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        assert out_channels % 2 == 0, f"{out_channels} channels have no half"
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        total: Tensor = self.bn3(self.conv3(y)) + self.downsample(x)
        return total
