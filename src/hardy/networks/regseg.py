"""RegSeg: a narrow encoder to stride 16, whose dilated, grouped convolutions cover large areas; 3.3 M parameters.

It is designed for training from scratch. In the last seven blocks half of the channels have dilation 14, the others
dilation 1. A light decoder goes up to stride 4.

Source: Gao, "Rethink dilated convolution for real-time semantic segmentation", arXiv:2111.09957, 2021, tables 1 and 2
and figures 2 to 4.
"""

from typing import Literal

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.dilated_block import DilatedBlock
from hardy.blocks.sizes import cells
from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.regseg import RegSegDecoder
from hardy.networks.parts.branches import cropped, padded
from hardy.types import Outputs

__all__ = ["RegSeg"]

_DILATIONS = ((1,), (1, 2), *[(1, 4)] * 4, *[(1, 14)] * 7)
"""Dilations of the blocks of the last stage after its first; the last of them goes from 256 to 320 channels."""


class RegSeg(Network):
    """Features: ``stage1`` .. ``stage3`` (48, 128, 320 channels at strides 4, 8, 16; the last at 32 for ``"strided"``),
    ``fused`` (B, 64, H/4, W/4), the embedding. Coarse logits at stride 4.

    Args:
        label_space: the classes predicted.
        variant: ``"paper"``, or ``"strided"`` as in a public implementation: the last block has stride 2, so the
            coarsest map has stride 32; squeeze and excitation has a quarter of the channels of a block's output, not of
            its input; the classifier has no bias. ``"strided"`` pads an image with a side below 64 pixels to 64, with
            the mean at the right and the bottom, and crops the logits to the image.
    """

    multiple = 16

    def __init__(self, label_space: LabelSpace, *, variant: Literal["paper", "strided"] = "paper") -> None:
        super().__init__(label_space)
        strided = self._strided = variant == "strided"
        self.stem = ConvNormAct(3, 32, stride=2)
        wide = [_block(256, 256, dilations, strided) for dilations in _DILATIONS[:-1]]
        last = _block(256, 320, _DILATIONS[-1], strided, stride=2 if strided else 1)
        self.stages = nn.ModuleList(
            [
                _block(32, 48, (1,), strided, stride=2),
                nn.Sequential(
                    _block(48, 128, (1,), strided, stride=2), *(_block(128, 128, (1,), strided) for _ in range(2))
                ),
                nn.Sequential(_block(128, 256, (1,), strided, stride=2), *wide, last),
            ]
        )
        initialise(self)
        self.decoder = RegSegDecoder((48, 128, 320), (4, 8, 32 if strided else 16), len(label_space))
        if strided:
            self.decoder.classifier.bias = None

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        size = x.shape[-2:]
        x = self.stem(padded(x, 64) if self._strided else x)
        features: dict[str, Tensor] = {}
        for number, stage in enumerate(self.stages, start=1):
            x = features[f"stage{number}"] = stage(x)
        fused = self.decoder.fuse(list(features.values()))
        logits = cropped(self.decoder.classifier(fused), cells(size, 4))
        features["fused"] = fused
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=fused)


def _block(
    in_channels: int, out_channels: int, dilations: tuple[int, ...], strided: bool, *, stride: int = 1
) -> DilatedBlock:
    squeezed = (out_channels if strided else in_channels) // 4
    return DilatedBlock(in_channels, out_channels, dilations, squeezed, stride=stride)
