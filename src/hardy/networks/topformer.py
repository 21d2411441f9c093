"""TopFormer T, S and B: convolutions and one transformer at stride 64 on all scales; 1.4, 3.0 and 5.0 M parameters.

The transformer reads the maps of strides 4 to 32, pooled to stride 64 and concatenated, so it is cheap and reads every
scale. Its output is split into one part for each map, and the parts of the maps at strides 8, 16 and 32 scale and shift
these. The results are added and classified.

Source: Zhang, Huang, Luo, Chen, Wang, Liu, Yu and Shen, "TopFormer: token pyramid transformer for mobile semantic
segmentation", CVPR 2022, section 3; widths and depths as in the authors' release.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_attention import ConvAttention
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.injection import Injection
from hardy.blocks.parts import Parts
from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network, resize
from hardy.networks.parts.mobile_transformer import convolutions, draw, transformer
from hardy.types import Outputs

__all__ = ["TopFormer"]

DEPTH = 4
"""Blocks of the transformer."""

STEM = 16
"""Channels at stride 2."""


class _Size(NamedTuple):
    channels: tuple[int, int, int, int]
    """Channels of the maps at strides 4, 8, 16 and 32."""
    layers: int
    """Inverted residuals at stride 32."""
    heads: int
    """Attention heads, each with 16 key channels and 32 value channels."""
    width: int
    """Channels of the segmentation head."""
    depthwise: bool
    """Whether the segmentation head's 1x1 convolution is depthwise."""


SIZES = {
    "t": _Size((16, 32, 64, 96), 2, 4, 128, True),
    "s": _Size((24, 48, 96, 128), 3, 6, 192, False),
    "b": _Size((32, 64, 128, 160), 3, 8, 256, False),
}


class TopFormer(Network):
    """Features: ``stage1`` .. ``stage4``, the maps at strides 4, 8, 16, 32 ((16, 32, 64, 96) channels for T, (24, 48,
    96, 128) for S, (32, 64, 128, 160) for B), ``tokens`` (B, the sum of these, H/64, W/64) after the transformer,
    ``fused`` (B, 128, 192 or 256, H/8, W/8), the embedding. Coarse logits at stride 8.

    Tokens have at least two cells along each side, also for images below 65 pixels: `torch.export` would treat a single
    cell as a constant size.

    Args:
        label_space: the classes predicted.
        variant: the size of the network.
        dropout: share of channels zeroed before the classifier while training.
        drop_path: stochastic depth: share of images that skip the transformer's last block in training; it rises
            linearly over the blocks.

    Raises:
        InputError: for a number out of range.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["t", "s", "b"] = "t",
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        within("TopFormer.dropout", dropout, 0, 1)
        within("TopFormer.drop_path", drop_path, 0, 1)
        super().__init__(label_space)
        size = SIZES[variant]
        c4, c8, c16, c32 = size.channels
        self.stem = nn.Sequential(ConvNormAct(3, STEM, stride=2), *convolutions(STEM, [(3, None, STEM, 1)]))
        coarsest = [(5, 6, c32, 1), (3, 6, c32, 1)][: size.layers - 1]
        self.stages = nn.ModuleList(
            [
                convolutions(STEM, [(3, 4, c4, 2), (3, 3, c4, 1)]),
                convolutions(c4, [(5, 3, c8, 2), (5, 3, c8, 1)]),
                convolutions(c8, [(3, 3, c16, 2), (3, 3, c16, 1)]),
                convolutions(c16, [(5, 6, c32, 2), *coarsest]),
            ]
        )
        width = sum(size.channels)
        self.transformer = transformer(DEPTH, width, 2, drop_path, lambda: ConvAttention(width, size.heads))
        self.parts = Parts()
        self.inject = nn.ModuleList(Injection(wide, wide, size.width) for wide in size.channels[1:])
        self.fuse = ConvNormAct(size.width, size.width, kernel=1, groups=size.width if size.depthwise else 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(size.width, len(label_space), 1)
        draw(self)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.stem(self.normalise(images))
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        tokens = self.transformer(_pooled(maps))
        fused = self.fuse(self._summed(maps, tokens))
        logits = self.classifier(self.dropout(fused))
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        features |= {"tokens": tokens, "fused": fused}
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=fused)

    def _summed(self, maps: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """The sum, at stride 8, of the maps from stride 8 on, each combined with its part of the tokens."""
        triples = zip(self.inject, maps[1:], self.parts(tokens, maps)[1:], strict=True)
        injected: list[Tensor] = [inject(x, part) for inject, x, part in triples]
        total = injected[0]
        for x in injected[1:]:
            total = total + resize(x, total.shape[-2:])
        return total


def _pooled(maps: Sequence[Tensor]) -> Tensor:
    """The maps averaged to half the size of the coarsest (rounded up, at least two cells) and concatenated."""
    height, width = (torch.sym_max(2, (side + 1) // 2) for side in maps[-1].shape[-2:])
    grid = cast(int, height), cast(int, width)
    return torch.cat([F.adaptive_avg_pool2d(x, grid) for x in maps], dim=1)
