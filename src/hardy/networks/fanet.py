"""FANet: a ResNet to stride 64 with fast attention on each of its four maps and a top-down path; 13.1 M parameters.

Unlike in a ResNet the first stage also halves the map, so the maps are at strides 8, 16, 32 and 64. Attention covers
each complete map. Coarse maps are added to finer ones, and the maps at strides 8 and 32 are concatenated and
classified. Layers of the published code whose output is not used are left out: a 3x3 convolution at stride 16, one at
stride 64 that only an auxiliary head reads, and a 1x1 convolution at stride 8. With them it has 13.8 million
parameters.

Source: Hu, Perazzi, Heilbron, Wang, Lin, Saenko and Sclaroff, "Real-time semantic segmentation with fast attention",
IEEE Robotics and Automation Letters 2021, section III and figure 2.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_leaky import SLOPE, ConvNormLeaky
from hardy.blocks.fast_attention import FastAttention
from hardy.blocks.open_size import halved_wider, masked, resized_from_wider
from hardy.blocks.pooled_norm import PooledNorm
from hardy.blocks.sizes import is_open
from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network
from hardy.networks.building.weights import fill, initialise
from hardy.networks.parts.pyramid import load_encoder
from hardy.networks.parts.resnet import DEPTHS
from hardy.types import Outputs

__all__ = ["FANet"]

CHANNELS = (64, 128, 256, 512)


class FANet(Network):
    """Features: ``stage1`` .. ``stage4`` (64, 128, 256, 512 channels at strides 8, 16, 32, 64), ``coarse`` and ``fine``
    (B, 128, h, w) at strides 32 and 8, ``fused`` (B, 256, H/8, W/8), the embedding. Coarse logits at stride 8.

    Args:
        label_space: the classes predicted.
        variant: layers of the ResNet, 18 or 34.
        encoder_weights: None for random initialisation; a file of the ResNet's weights with the names of torchvision or
            timm; ``"timm"`` or a timm tag. The shortcut that halves the map in the first stage is always random.
        aux: in training, a head on each of the maps at strides 64 and 32; their weight in the paper is 0.5.
        published: follow the published code where it differs from the paper: attention sums over cells instead of
            averaging, maps of the top-down path have a border of zeros, and maps and logits are resized with aligned
            corners, also in losses.

    Raises:
        InputError: for weights that do not fit or cannot be downloaded.
    """

    multiple = 32
    auxiliary_weight = 0.5

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal[18, 34] = 18,
        encoder_weights: str | None = None,
        aux: bool = False,
        published: bool = False,
    ) -> None:
        super().__init__(label_space)
        self.align_corners = published
        name = f"resnet{variant}"
        self.backbone = _Backbone(DEPTHS[name])
        self.attention = nn.ModuleList(FastAttention(wide, mean=not published) for wide in CHANNELS)
        border = 1 if published else 0
        self.down = nn.ModuleList(ConvNormLeaky(wide, wide // 2, 1, padding=border) for wide in CHANNELS[1:])
        self.fine = ConvNormLeaky(CHANNELS[0], 128, 3)
        self.coarse = ConvNormLeaky(CHANNELS[2], 128, 3)
        self.mix = ConvNormLeaky(256, 256, 3)
        self.head = nn.Conv2d(256, len(label_space), 1, bias=False)
        self.aux = _auxiliary(len(label_space)) if aux else None
        initialise(self)
        if encoder_weights is not None:
            trained = load_encoder(name, encoder_weights, lambda model: model.reset_classifier(0)).state_dict()
            initial = {name: own for name, own in self.backbone.state_dict().items() if name not in trained}
            fill(self.backbone, {**initial, **trained}, encoder_weights)
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The ResNet."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps, inside = self.backbone(self.normalise(images))
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        masks = (None, None, None, inside)
        seen = [attention(x, mask) for attention, x, mask in zip(self.attention, maps, masks, strict=True)]
        for level in (2, 1, 0):
            seen[level] = seen[level] + self._down(level, seen[level + 1], masks[level + 1], seen[level].shape[-2:])
        fine = features["fine"] = self.fine(seen[0])
        coarse = features["coarse"] = self.coarse(seen[2])
        fused = features["fused"] = self.mix(torch.cat([self.enlarged(coarse, fine.shape[-2:]), fine], dim=1))
        logits = self.head(fused)
        extras = {}
        if self.aux is not None and self.training:
            extras["aux_coarsest"] = self.aux["coarsest"](seen[3])
            extras["aux_coarse"] = self.aux["coarse"](coarse)
        full_size = self.enlarged(logits, images.shape[-2:])
        return Outputs(full_size, features, extras, coarse=logits, embedding=fused)

    def _down(self, level: int, x: Tensor, inside: Tensor | None, size: Sequence[int]) -> Tensor:
        """The contribution of ``x`` to the map of ``level``, which has ``size``."""
        if inside is None:
            return self.enlarged(self.down[level](x), size)
        return resized_from_wider(self.down[level](masked(x, inside)), size, align_corners=self.align_corners)


class _Backbone(nn.Module):
    """Normalised images -> the maps of the four stages at strides 8, 16, 32, 64, after the ReLU, and None.

    While `torch.export` leaves the size open, the last map has one more row and column of zeros, and its mask is
    returned instead of None.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = PooledNorm(64)
        inputs = (64, *CHANNELS[:-1])
        one, two, three, four = (_stage(*each) for each in zip(inputs, CHANNELS, depths, strict=True))
        self.layer1, self.layer2, self.layer3, self.layer4 = one, two, three, four

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor | None]:
        x = F.max_pool2d(F.leaky_relu(self.bn1(self.conv1(images)), SLOPE), 3, 2, 1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        x, inside = halved_wider(x) if is_open(x) else (x, None)
        for block in self.layer4:
            x = block(x, inside)
        return [*maps, x], inside


def _stage(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    first = _Block(in_channels, out_channels, stride=2)
    return nn.Sequential(first, *(_Block(out_channels, out_channels, stride=1) for _ in range(count - 1)))


class _Block(nn.Module):
    """The basic residual block with a leaky ReLU inside and a ReLU after its sum, named as in ImageNet checkpoints."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = PooledNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = PooledNorm(out_channels)
        shortcut = [nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), PooledNorm(out_channels)]
        self.downsample = nn.Sequential(*(shortcut if stride > 1 else []))

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        y = F.leaky_relu(self.bn1(self.conv1(x)), SLOPE)
        y = self.bn2(self.conv2(masked(y, inside)))
        return masked(F.relu(y + self.downsample(x)), inside)


def _auxiliary(class_count: int) -> nn.ModuleDict:
    """A head on ``coarse``, and one on the map at stride 64, which is first projected to 128 channels."""
    coarse, coarsest = (
        [ConvNormLeaky(128, 64, 3), nn.Conv2d(64, class_count, 1, bias=False)] for _ in ("coarse", "coarsest")
    )
    narrow = ConvNormLeaky(CHANNELS[3], 128, 3)
    return nn.ModuleDict({"coarse": nn.Sequential(*coarse), "coarsest": nn.Sequential(narrow, *coarsest)})
