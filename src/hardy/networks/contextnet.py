"""ContextNet: a deep branch at a quarter of the resolution and a shallow one at full resolution; 0.88 M parameters.

The deep branch has inverted residuals down to stride 32, the shallow branch depthwise separable convolutions down to
stride 8, where both are added and classified. With two depthwise separable convolutions before the classifier it has
0.88 million parameters, without them 0.84; the paper says 0.85.

Source: Poudel, Bonde, Liwicki and Zach, "ContextNet: exploring context and detail for semantic segmentation in
real-time", BMVC 2018, tables 1 to 3.
"""

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.depthwise_separable import DepthwiseSeparable
from hardy.blocks.fusion_unit import FusionUnit
from hardy.blocks.inverted_residual import InvertedResidual
from hardy.blocks.sizes import cells
from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.types import Outputs

__all__ = ["ContextNet"]

BOTTLENECKS = ((1, 32, 1, 1), (6, 32, 1, 1), (6, 48, 3, 2), (6, 64, 3, 2), (6, 96, 2, 1), (6, 128, 2, 1))
"""Expansion, channels, number and stride of the inverted residuals of the deep branch."""


class ContextNet(Network):
    """Features: ``context`` (B, 128, H/(8 factor), W/(8 factor)), ``detail`` (B, 128, H/8, W/8), ``fused`` (B, 128,
    H/8, W/8), the embedding. Coarse logits at stride 8.

    Args:
        label_space: the classes predicted.
        factor: how many times smaller each side of the image is in the deep branch, whose stride is 8 times this; also
            the dilation of the convolution that follows the enlarged map of this branch.
        blocks: number of depthwise separable convolutions before the classifier.
        dropout: share of values zeroed before the classifier while training.

    Raises:
        InputError: for a number out of range.
    """

    multiple = 32

    def __init__(self, label_space: LabelSpace, *, factor: int = 4, blocks: int = 2, dropout: float = 0.1) -> None:
        within("ContextNet.factor", factor, 1, 8)
        within("ContextNet.blocks", blocks, 0)
        within("ContextNet.dropout", dropout, 0, 1)
        super().__init__(label_space)
        self.factor = factor
        self.context = nn.Sequential(ConvNormAct(3, 32, stride=2), *_bottlenecks(32))
        self.detail = nn.Sequential(
            ConvNormAct(3, 32, stride=2),
            DepthwiseSeparable(32, 64, stride=2),
            DepthwiseSeparable(64, 128, stride=2),
            DepthwiseSeparable(128, 128),
        )
        self.fusion = FusionUnit(128, 128, 128, dilation=factor)
        self.head = nn.Sequential(
            *(DepthwiseSeparable(128, 128) for _ in range(blocks)),
            nn.Dropout(dropout),
            nn.Conv2d(128, len(label_space), 1),
        )
        initialise(self)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        smaller = resize(x, cells(x.shape[-2:], self.factor))
        context, detail = self.context(smaller), self.detail(x)
        fused = self.fusion(detail, context)
        logits = self.head(fused)
        features = {"context": context, "detail": detail, "fused": fused}
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=fused)


def _bottlenecks(channels: int) -> list[InvertedResidual]:
    blocks = []
    for expansion, wide, count, stride in BOTTLENECKS:
        for index in range(count):
            blocks.append(InvertedResidual(channels, wide, stride=1 if index else stride, expansion=expansion))
            channels = wide
    return blocks
