"""ICNet's encoder of the two smaller resolutions: a ResNet that resizes its map to half and dilates its last stages.

The map is resized after the first block of the second stage; the third and the fourth stage keep its size and have
dilations 2 and 4.

Source: Zhao, Qi, Shen, Shi and Jia, "ICNet for real-time semantic segmentation on high-resolution images", ECCV 2018,
section 3.2 and figure 2; the ResNets: He, Zhang, Ren and Sun, CVPR 2016, table 1.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.basic_block import BasicBlock
from hardy.blocks.bottleneck import Bottleneck
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.sizes import cells, resize

__all__ = ["DilatedResNet18", "DilatedResNet50", "halved"]

DILATIONS = (1, 1, 2, 4)
"""Dilation of each stage."""


class DilatedResNet50(nn.Module):
    """Images (B, 3, H, W) -> (B, 512 width, H/8, W/8), (B, 2048 width, H/16, W/16): before the resizing, at the end.

    It starts with three 3x3 convolutions, as in the published network.

    Attributes:
        channels: channels of the two maps.

    Args:
        width: channels of every layer, as a multiple of those of ResNet-50.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        narrow, *wide = (round(channels * width) for channels in (64, 128, 256, 512, 1024, 2048))
        self.stem = nn.Sequential(
            ConvNormAct(3, narrow, stride=2), ConvNormAct(narrow, narrow), ConvNormAct(narrow, wide[0])
        )
        self.channels = (wide[2], wide[4])
        parts = zip(wide[:-1], wide[1:], (3, 4, 6, 3), DILATIONS, strict=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(*(Bottleneck(out if index else into, out, dilation=dilation) for index in range(count)))
            for into, out, count, dilation in parts
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as above."""
        x = self.layer1(F.max_pool2d(self.stem(images), 3, 2, 1))
        half = self.layer2[0](x[..., ::2, ::2])  # the 1x1 convolution and the shortcut have the stride
        return half, self.layer4(self.layer3(self.layer2[1:](halved(half))))


class DilatedResNet18(nn.Module):
    """Images (B, 3, H, W) -> (B, 128 width, H/8, W/8), (B, 512 width, H/16, W/16): before the resizing, at the end.

    Parameters are named as in ImageNet checkpoints.

    Attributes:
        channels: channels of the two maps.

    Args:
        width: channels of every layer, as a multiple of those of ResNet-18.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        narrow, *wide = (round(channels * width) for channels in (64, 64, 128, 256, 512))
        self.channels = (wide[1], wide[3])
        self.conv1 = nn.Conv2d(3, narrow, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        inputs = (narrow, *wide[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                BasicBlock(into, out, stride=stride, dilation=dilation), BasicBlock(out, out, dilation=dilation)
            )
            for into, out, stride, dilation in zip(inputs, wide, (1, 2, 1, 1), DILATIONS, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as above."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        for block in self.layer1:
            x = F.relu(block(x))
        half = F.relu(self.layer2[0](x))
        x = halved(half)
        for block in (self.layer2[1], *self.layer3, *self.layer4):
            x = F.relu(block(x))
        return half, x


def halved(x: Tensor) -> Tensor:
    """``x`` (B, C, h, w) at half its size, bilinear; sides round up."""
    return resize(x, cells(x.shape[-2:], 2))
