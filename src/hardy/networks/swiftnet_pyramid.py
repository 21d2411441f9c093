"""SwiftNet with an image pyramid: one ResNet-18 on the image at three sizes, and a ladder of sums; 12.1 M parameters.

The sizes share all weights except the batch norms in the encoder's main path. One convolution per stage projects maps
to one width; maps of equal stride are added. The ladder goes from stride 128 to stride 4 and needs no pooling.

Source: Orsic, Kreso, Bevandic and Segvic, "In defense of pre-trained ImageNet architectures for real-time semantic
segmentation of road-driving images", CVPR 2019, section 3.3 and figure 3; split norms and the ladder: Orsic and Segvic,
"Efficient semantic segmentation with pyramidal fusion", Pattern Recognition 2021, section 3.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.norm_act_conv import NormActConv
from hardy.blocks.open_size import halved_wider, masked, resized_from_wider
from hardy.blocks.pooled_norm import PooledNorm
from hardy.blocks.sizes import cells, is_open
from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import fill, initialise
from hardy.networks.parts.pyramid import load_encoder
from hardy.types import Outputs

__all__ = ["SwiftNetPyramid"]

CHANNELS = (64, 128, 256, 512)
WIDTH = 128
"""Channels of the ladder."""

Map = tuple[Tensor, Tensor | None]
"""A map, and its mask where `torch.export` cannot know whether it has a single row or column (see `open_size`)."""


class SwiftNetPyramid(Network):
    """Features: ``stage1`` .. ``stage4`` of the image at full size (64, 128, 256, 512 channels at strides 4, 8, 16, 32;
    before the ReLU), ``fused`` (B, 128, H/4, W/4), the embedding. Coarse logits at stride 4.

    Args:
        label_space: the classes predicted.
        levels: the number of image sizes, each half of the one before.
        encoder_weights: None for random initialisation; a file of ResNet-18 weights with the names of torchvision or
            timm; ``"timm"`` or a timm tag. The batch norms of all sizes start from the same values.
        subsample: how the image is reduced: ``"bilinear"`` from the size before, or ``"bicubic"`` from the full size,
            as in the authors' release.

    Raises:
        InputError: for a number out of range, or weights that do not fit or cannot be downloaded.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        levels: int = 3,
        encoder_weights: str | None = None,
        subsample: Literal["bilinear", "bicubic"] = "bilinear",
    ) -> None:
        within("SwiftNetPyramid.levels", levels, 1, 4)
        super().__init__(label_space)
        self.subsample = subsample
        self.levels = levels
        self.backbone = _ResNet18(levels)
        self.narrow = nn.ModuleList(nn.Conv2d(wide, WIDTH, 1, bias=False) for wide in CHANNELS)
        self.ladder = nn.ModuleList(NormActConv(WIDTH, WIDTH, kernel=3) for _ in range(levels + 2))
        self.head = NormActConv(WIDTH, len(label_space), bias=True)
        initialise(self)
        if encoder_weights is not None:
            trained = load_encoder("resnet18", encoder_weights, lambda model: model.reset_classifier(0)).state_dict()
            split = {name: _split(name) for name in self.backbone.state_dict()}
            copies = {name: trained[one] for name, one in split.items() if one in trained}
            left = {name: value for name, value in trained.items() if name not in split.values()}
            fill(self.backbone, {**copies, **left}, encoder_weights)
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The ResNet-18."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = full = self.normalise(images)
        skips: dict[int, list[Tensor]] = defaultdict(list)
        masks: dict[int, Tensor | None] = {}
        features = {}
        for level in range(self.levels):
            if level:
                size = cells(x.shape[-2:], 2)
                cubic = self.subsample == "bicubic"
                x = F.interpolate(full, size=size, mode="bicubic", align_corners=False) if cubic else resize(x, size)
            for stage, (total, inside) in enumerate(self.backbone(x, level)):
                skips[level + stage].append(self.narrow[stage](total))
                masks[level + stage] = inside
                if level == 0:
                    features[f"stage{stage + 1}"] = total
        coarsest = self.levels + 2
        y = skips[coarsest][0]
        for place, step in zip(reversed(range(coarsest)), self.ladder, strict=True):
            y = _enlarged((y, masks[place + 1]), (skips[place][0], masks[place]))
            for skip in skips[place]:
                y = y + skip
            norm, act, conv = step.children()
            y = conv(masked(act(norm(y)), masks[place]))
        features["fused"] = y
        logits = self.head(y)
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=y)


def _enlarged(coarse: Map, fine: Map) -> Tensor:
    """``coarse`` at the size of ``fine``."""
    size = fine[0].shape[-2:]
    if coarse[1] is None:
        return resize(coarse[0], size)
    return resized_from_wider(coarse[0], size, wide=fine[1] is not None)


def _split(name: str) -> str:
    """The parameter ``name`` without the index of the image size, as in a checkpoint."""
    return re.sub(r"\b(bn\d)\.\d+\.", r"\1.", name)


class _ResNet18(nn.Module):
    """The residual sums of the four stages, before their ReLU, for images of one of the sizes. Parameters are named as
    in ImageNet checkpoints, with an index added to norms."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = _norms(64, levels)
        inputs = (64, *CHANNELS[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.ModuleList((_Block(into, out, levels, stride=1 if into == out else 2), _Block(out, out, levels)))
            for into, out in zip(inputs, CHANNELS, strict=True)
        )

    def forward(self, images: Tensor, level: int) -> list[Map]:
        x, inside = F.max_pool2d(F.relu(self.bn1[level](self.conv1(images))), 3, 2, 1), None
        maps: list[Map] = []
        for stage, blocks in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            if stage and level + stage > 3 and (inside is not None or is_open(x)):  # stride 64 and beyond
                x, inside = halved_wider(x, inside)
            for block in blocks:
                total = block(x, level, inside)
                x = F.relu(total)
            maps.append((total, inside))
        return maps


class _Block(nn.Module):
    """The basic residual block before its last ReLU, with separate norms for each image size."""

    def __init__(self, in_channels: int, out_channels: int, levels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = _norms(out_channels, levels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = _norms(out_channels, levels)
        shortcut = [nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), PooledNorm(out_channels)]
        self.downsample = nn.Sequential(*(shortcut if stride > 1 else []))

    def forward(self, x: Tensor, level: int, inside: Tensor | None = None) -> Tensor:
        y = masked(F.relu(self.bn1[level](self.conv1(x))), inside)
        return masked(self.bn2[level](self.conv2(y)) + self.downsample(x), inside)


def _norms(channels: int, levels: int) -> nn.ModuleList:
    """Batch norms that use their running statistics for maps of a single cell."""
    return nn.ModuleList(PooledNorm(channels) for _ in range(levels))
