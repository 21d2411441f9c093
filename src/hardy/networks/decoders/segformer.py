"""The SegFormer head: maps are projected to one width, resized to the finest, mixed and classified per pixel.

Source: Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021,
equation 4. There the projections are linear layers; in MMSegmentation (2020) each has a batch norm and a ReLU.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.errors import within
from hardy.networks.base import resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["SegFormerHead"]


class SegFormerHead(Decoder):
    """Logits at the stride of the finest map.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        width: channels of each projection and of the layer that joins them; the paper's is 256 for B0 and B1 and 768
            for B2 to B5.
        projection: ``"batch_norm"`` for a 1x1 convolution, batch norm and ReLU; ``"linear"`` for a linear layer alone.
        dropout: share of channels zeroed before the classifier while training.

    Raises:
        InputError: for a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        width: int = 256,
        projection: Literal["batch_norm", "linear"] = "batch_norm",
        dropout: float = 0.1,
    ) -> None:
        within("SegFormerHead.width", width, 1)
        within("SegFormerHead.dropout", dropout, 0, 1)
        super().__init__(channels, strides, class_count)
        self.projections = nn.ModuleList(
            ConvNormAct(wide, width, kernel=1) if projection == "batch_norm" else nn.Conv2d(wide, width, 1)
            for wide in channels
        )
        self.fuse = ConvNormAct(len(channels) * width, width, kernel=1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, class_count, 1)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        size = maps[0].shape[-2:]
        equal = [resize(project(x), size) for project, x in zip(self.projections, maps, strict=True)]
        fused = self.fuse(torch.cat(equal, dim=1))
        return Decoded(fused, self.classifier(self.dropout(fused)))
