"""The PP-LiteSeg head: pyramid pooling of the last map, then attention fusion with the next finer map, step by step.

The decoder has fewer channels at finer maps.

Source: Peng et al., "PP-LiteSeg: a superior real-time semantic segmentation model", arXiv:2204.02681, 2022, sections
3.2 to 3.4.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.simple_pyramid_pooling import SimplePyramidPooling
from hardy.blocks.unified_attention_fusion import UnifiedAttentionFusion
from hardy.errors import InputError, within
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["PPLiteSegHead"]


class PPLiteSegHead(Decoder):
    """Logits at the stride of the finest map used; the number of ``widths`` is the number of maps used, from the last.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        widths: channels of the decoder at each map used, finest first; (32, 64, 128) in the paper's T, (64, 96, 128) in
            its B.
        context: channels of the pyramid pooling.
        grids: sides of its pooling grids.
        dropout: share of channels zeroed before the classifier while training.

    Raises:
        InputError: for fewer maps than widths, or a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        widths: Sequence[int] = (32, 64, 128),
        context: int = 128,
        grids: Sequence[int] = (1, 2, 4),
        dropout: float = 0.0,
    ) -> None:
        if not 0 < len(widths) <= len(channels):
            raise InputError(f"pp_liteseg widths={list(widths)}: give 1 to {len(channels)}, the encoder's maps")
        within("PPLiteSegHead.widths", min(widths), 1)
        within("PPLiteSegHead.context", context, 1)
        within("PPLiteSegHead.grids", min(grids, default=0), 1)
        within("PPLiteSegHead.dropout", dropout, 0, 1)
        super().__init__(channels, strides, class_count)
        used, below = channels[-len(widths) :], (*widths[1:], context)
        self.pooling = SimplePyramidPooling(channels[-1], context, grids)
        self.projections = nn.ModuleList(ConvNormAct(wide, width) for wide, width in zip(used, below, strict=True))
        self.fusions = nn.ModuleList(map(UnifiedAttentionFusion, below, widths))
        self.mix = ConvNormAct(widths[0], widths[0])
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(widths[0], class_count, 1, bias=False)
        initialise(self)
        nn.init.normal_(self.classifier.weight, std=widths[0] ** -0.5)  # no ReLU follows

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        fused = self.fuse(maps[-1], self.project(maps))[0]
        return Decoded(fused, self.classify(fused))

    def project(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps used, finest first, each projected to the channels of the decoder's next coarser map."""
        used = maps[-len(self.projections) :]
        return [project(x) for project, x in zip(self.projections, used, strict=True)]

    def fuse(self, coarsest: Tensor, projected: Sequence[Tensor]) -> list[Tensor]:
        """The decoder's maps, finest first, from the encoder's coarsest and the maps of `project`."""
        x: Tensor = self.pooling(coarsest)
        fused = []
        for fuse, finer in zip(reversed(self.fusions), reversed(projected), strict=True):
            x = fuse(finer, x)
            fused.append(x)
        return fused[::-1]

    def classify(self, fused: Tensor) -> Tensor:
        """Logits from the finest map of `fuse`."""
        logits: Tensor = self.classifier(self.dropout(self.mix(fused)))
        return logits
