"""A linear classifier per pixel, on the last map or on all maps.

On all maps it equals one 1x1 convolution of the concatenated maps: a sum of one convolution per map, each before the
resize, where it costs less.

Source: Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, section 4.2.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hardy.errors import within
from hardy.networks.base import resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["Linear"]


class Linear(Decoder):
    """Logits at the stride of the finest map used. The embedding of several maps is their concatenation, resized to the
    coarsest map.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        maps: ``"last"`` or ``"all"``.
        dropout: share of channels zeroed while training.

    Raises:
        InputError: for a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        maps: Literal["last", "all"] = "last",
        dropout: float = 0.0,
    ) -> None:
        within("Linear.dropout", dropout, 0, 1)
        super().__init__(channels, strides, class_count)
        used = channels[-1:] if maps == "last" else channels
        self.dropout = nn.Dropout2d(dropout)
        self.classifiers = nn.ModuleList(nn.Conv2d(width, class_count, 1) for width in used)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        used = maps[-len(self.classifiers) :]
        logits = [classify(self.dropout(x)) for classify, x in zip(self.classifiers, used, strict=True)]
        total: Tensor = logits[0]
        for coarser in logits[1:]:
            total = total + resize(coarser, total.shape[-2:])
        if len(used) == 1:
            return Decoded(used[0], total)
        return Decoded(torch.cat([resize(x, used[-1].shape[-2:]) for x in used], dim=1), total)
