"""BiSeNetV2: a wide, shallow detail branch and a narrow, deep semantic branch gate each other; 3.4 M parameters.

It is designed for training from scratch: in training, booster heads read every stage of the semantic branch.

Source: Yu, Gao, Wang, Yu, Shen and Sang, "BiSeNet V2: bilateral network with guided aggregation for real-time semantic
segmentation", IJCV 2021, table 1 and figures 3 to 6; the widths of the heads are those of public implementations.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.bilateral_aggregation import BilateralAggregation, enlarged
from hardy.blocks.context_embedding import ContextEmbedding
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.gather_expansion import GatherExpansion
from hardy.blocks.sizes import cells
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError, within
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.networks.parts.branches import cropped, padded
from hardy.types import Outputs

__all__ = ["BiSeNetV2"]


class BiSeNetV2(Network):
    """Features: ``stage1`` .. ``stage4`` of the semantic branch (16, 32, 64, 128 channels at strides 4, 8, 16, 32),
    ``detail`` (B, 128, H/8, W/8), ``context`` (B, 128, H/32, W/32), the last stage with the mean of the map added,
    ``fused`` (B, 128, H/8, W/8), the embedding. Coarse logits at stride 8.

    An image with a side below 64 pixels is padded to 64 with the mean at the right and the bottom, so that the map at
    stride 32 has at least 2x2 cells; the logits are cropped to the image.

    Args:
        label_space: the classes predicted.
        aux: in training, a booster head on each stage of the semantic branch, ``aux_stage1`` .. ``aux_stage4``, at
            twice the size of its map, with weight 1.
        head_width: channels before the classifier.
        booster_width: channels of the boosters' first convolution.
        dropout: share of values zeroed before each classifier while training.
        upsample: how the fusion and the boosters enlarge maps; ``"nearest"`` in the most used public release.

    Raises:
        InputError: for a number out of range, or a ``booster_width`` without ``aux``.
    """

    multiple = 32
    auxiliary_weight = 1.0

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        aux: bool = False,
        head_width: int = 1024,
        booster_width: int = 128,
        dropout: float = 0.1,
        upsample: Literal["bilinear", "nearest"] = "bilinear",
    ) -> None:
        within("BiSeNetV2.head_width", head_width, 1)
        within("BiSeNetV2.booster_width", booster_width, 1)
        if booster_width != 128 and not aux:
            raise InputError(f"BiSeNetV2.booster_width: {booster_width} has no effect without boosters; set aux")
        within("BiSeNetV2.dropout", dropout, 0, 1)
        super().__init__(label_space)
        self.detail = nn.Sequential(
            *_convs(3, 64, 2),
            *_convs(64, 64, 3),
            *_convs(64, 128, 3),
        )
        self.semantic = nn.ModuleList([_Stem(16), _stage(16, 32, 2), _stage(32, 64, 2), _stage(64, 128, 4)])
        self.context = ContextEmbedding(128)
        self.fusion = BilateralAggregation(128, upsample=upsample)
        self.head = nn.Sequential(
            ConvNormAct(128, head_width), nn.Dropout(dropout), nn.Conv2d(head_width, len(label_space), 1)
        )
        widths = {16: 4, 32: 8, 64: 16, 128: 32}
        self.boosters = nn.ModuleList(
            _Booster(channels, booster_width, stride, len(label_space), dropout, upsample)
            for channels, stride in (widths if aux else {}).items()
        )
        initialise(self)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        size = x.shape[-2:]
        x = stage = padded(x, 64)
        features: dict[str, Tensor] = {}
        for number, layers in enumerate(self.semantic, start=1):
            stage = features[f"stage{number}"] = layers(stage)
        extras: dict[str, Tensor] = {}
        if self.training:
            for number, booster in enumerate(self.boosters, start=1):
                height, width = cells(size, 2 ** (number + 1))
                extras[f"aux_stage{number}"] = cropped(booster(features[f"stage{number}"]), (2 * height, 2 * width))
        detail, context = self.detail(x), self.context(stage)
        fused = self.fusion(detail, context)
        logits = cropped(self.head(fused), cells(size, 8))
        features |= {"detail": detail, "context": context, "fused": fused}
        return Outputs(resize(logits, images.shape[-2:]), features, extras, coarse=logits, embedding=fused)


def _convs(in_channels: int, out_channels: int, count: int) -> list[ConvNormAct]:
    """``count`` 3x3 convolutions, the first with stride 2."""
    first = ConvNormAct(in_channels, out_channels, stride=2)
    return [first, *(ConvNormAct(out_channels, out_channels) for _ in range(count - 1))]


def _stage(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    """``count`` gather-and-expand blocks, the first with stride 2."""
    first = GatherExpansion(in_channels, out_channels, stride=2)
    return nn.Sequential(first, *(GatherExpansion(out_channels, out_channels) for _ in range(count - 1)))


class _Stem(nn.Module):
    """Figure 4a: a strided convolution, then two convolutions and a pooling in parallel, down to stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNormAct(3, width, stride=2)
        self.filter = nn.Sequential(ConvNormAct(width, width // 2, kernel=1), ConvNormAct(width // 2, width, stride=2))
        self.join = ConvNormAct(2 * width, width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        joined: Tensor = self.join(torch.cat([self.filter(x), F.max_pool2d(x, 3, 2, 1)], dim=1))
        return joined


class _Booster(nn.Module):
    """A head on a map at ``stride``, at twice its size: one channel per pixel of a cell, then classes."""

    def __init__(
        self, in_channels: int, width: int, stride: int, class_count: int, dropout: float, upsample: str
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.narrow = nn.Sequential(ConvNormAct(in_channels, width), nn.Dropout(dropout))
        self.widen = ConvNormAct(width, stride**2)
        self.classifier = nn.Conv2d(stride**2, class_count, 1)

    def forward(self, x: Tensor) -> Tensor:
        doubled = enlarged(self.narrow(x), [2 * side for side in x.shape[-2:]], self.upsample, 2)
        logits: Tensor = self.classifier(self.widen(doubled))
        return logits
