"""SeaFormer T, S, B and L: convolutions to stride 64, axial attention in the last stages; 1.7 to 13.9 M parameters.

Attention works on the means of rows and of columns, so it is cheap at any size; a parallel convolution keeps the
details. A light head multiplies the map at stride 8 by a gate from each stage with attention, in sequence.

Source: Wan, Huang, Lu, Yu and Zhang, "SeaFormer: squeeze-enhanced axial transformer for mobile semantic segmentation",
ICLR 2023, section 3; strides, widths and depths as in the authors' release.
"""

from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.injection import Injection
from hardy.blocks.squeeze_axial_attention import SqueezeAxialAttention
from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network, resize
from hardy.networks.parts.branches import padded
from hardy.networks.parts.mobile_transformer import Layer, convolutions, draw, transformer
from hardy.types import Outputs

__all__ = ["SeaFormer"]


_LEAST = 3
"""The smallest side, in cells, to which the map at stride 32 is padded."""


class _Size(NamedTuple):
    stem: int
    """Channels at stride 2."""
    stages: tuple[tuple[Layer, ...], ...]
    """The inverted residuals down to strides 4, 8, 16, 32 and 64."""
    depth: int
    """Transformer blocks of each of the last stages."""
    heads: int
    keys: tuple[int, ...]
    """Key channels per head in each of the last stages."""
    ratios: tuple[int, ...]
    """Hidden channels of their feed-forward layers, as a multiple of the stage's channels."""
    widths: tuple[int, ...]
    """Channels of the segmentation head after the gate of each of the last stages."""


def _stages(c4: int, c8: int, c16: int, c32: int, c64: int, expansion: int) -> tuple[tuple[Layer, ...], ...]:
    """The stages of T, S and B, which differ in channels and in the ``expansion`` at stride 32."""
    return (
        ((3, None, 16, 1), (3, 4, c4, 2), (3, 3, c4, 1)),
        ((5, 3, c8, 2), (5, 3, c8, 1)),
        ((3, 3, c16, 2), (3, 3, c16, 1)),
        ((5, expansion, c32, 2),),
        ((3, 6, c64, 2),),
    )


_LARGE: tuple[tuple[Layer, ...], ...] = (
    ((3, 3, 32, 1), (3, 4, 64, 2), (3, 4, 64, 1)),
    ((5, 4, 128, 2), (5, 4, 128, 1)),
    ((3, 4, 192, 2), (3, 4, 192, 1)),
    ((5, 4, 256, 2),),
    ((3, 6, 320, 2),),
)

SIZES = {
    "t": _Size(16, _stages(16, 32, 64, 128, 160, 3), 2, 4, (16, 24), (2, 4), (64, 96)),
    "s": _Size(16, _stages(24, 48, 96, 160, 192, 4), 3, 6, (16, 24), (2, 4), (96, 128)),
    "b": _Size(16, _stages(32, 64, 128, 192, 256, 4), 4, 8, (16, 24), (2, 4), (128, 160)),
    "l": _Size(32, _LARGE, 3, 8, (16, 20, 24), (2, 4, 6), (128, 160, 192)),
}


class SeaFormer(Network):
    """Features: ``stage1`` .. ``stage5``, the maps at strides 4, 8, 16, 32, 64, the last two (in L three) after their
    transformers: (16, 32, 64, 128, 160) channels for T, (24, 48, 96, 160, 192) for S, (32, 64, 128, 192, 256) for B,
    (64, 128, 192, 256, 320) for L; ``fused`` (B, C, H/8, W/8), the embedding, with 96, 128, 160 or 192 channels. Coarse
    logits at stride 8.

    A map at stride 32 with a side below three cells is padded to three, with zeros at the right and the bottom, before
    the stage at stride 64. Otherwise `torch.export` would treat a single cell there as a constant size.

    Args:
        label_space: the classes predicted.
        variant: the size of the network.
        dropout: share of channels zeroed before the classifier while training.
        drop_path: stochastic depth: share of images that skip the last block of each transformer in training; it rises
            linearly over the blocks.

    Raises:
        InputError: for a number out of range.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["t", "s", "b", "l"] = "s",
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        within("SeaFormer.dropout", dropout, 0, 1)
        within("SeaFormer.drop_path", drop_path, 0, 1)
        super().__init__(label_space)
        size = SIZES[variant]
        channels = [stage[-1][2] for stage in size.stages]
        self.stem = ConvNormAct(3, size.stem, stride=2)
        before = (size.stem, *channels)
        self.stages = nn.ModuleList(convolutions(wide, stage) for wide, stage in zip(before, size.stages, strict=False))
        self.transformers, self.inject = nn.ModuleList(), nn.ModuleList()
        fine = channels[1]
        last = channels[-len(size.keys) :]
        for wide, keys, ratio, width in zip(last, size.keys, size.ratios, size.widths, strict=True):
            attention = partial(SqueezeAxialAttention, wide, size.heads, keys)
            self.transformers.append(transformer(size.depth, wide, ratio, drop_path, attention))
            self.inject.append(Injection(fine, wide, width, add=False))
            fine = width
        self.fuse = ConvNormAct(fine, fine, kernel=1, groups=fine)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(fine, len(label_space), 1)
        draw(self)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.stem(self.normalise(images))
        maps: list[Tensor] = []
        without = len(self.stages) - len(self.transformers)
        for place, stage in enumerate(self.stages):
            x = stage(padded(x, _LEAST) if stage is self.stages[-1] else x)
            if place >= without:
                x = self.transformers[place - without](x)
            maps.append(x)
        fused = maps[1]
        for inject, coarse in zip(self.inject, maps[without:], strict=True):
            fused = inject(fused, coarse)
        fused = self.fuse(fused)
        logits = self.classifier(self.dropout(fused))
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        features["fused"] = fused
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=fused)
