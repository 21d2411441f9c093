"""A residual network of two stages, small."""

import torch
from timm.models.resnet import BasicBlock
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network, resize
from hardy.types import Outputs


class Residual(Network):
    """A stem, two stages of two basic blocks or bottlenecks, a head; every stage ends in what the authors gate."""

    least_size = 8

    def __init__(self, block=BasicBlock):
        super().__init__(find_label_space("camvid11"))
        width = 4 * block.expansion
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.stage1 = nn.Sequential(block(4, 4, downsample=shortcut(4, width, 1)), block(width, 4))
        self.stage2 = nn.Sequential(
            block(width, 6, 2, shortcut(width, 6 * block.expansion, 2)), block(6 * block.expansion, 6)
        )
        self.head = nn.Conv2d(6 * block.expansion, 11, 1)

    def outputs(self, images):
        x = self.stage2(self.stage1(torch.relu(self.bn1(self.conv1(self.normalise(images))))))
        return Outputs(resize(self.head(x), images.shape[-2:]))


def shortcut(width, out, stride):
    if width == out and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
