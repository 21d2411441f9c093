"""RegSeg's decoder: the coarsest map is added to a middle map, and the sum is concatenated with a narrow fine map.

Source: Gao, "Rethink dilated convolution for real-time semantic segmentation", arXiv:2111.09957, 2021, section 3.4
and figure 4.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.errors import InputError, within
from hardy.networks.base import resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["RegSegDecoder"]


class RegSegDecoder(Decoder):
    """Logits at the stride of the finest map; the middle map is the second finest, at stride 8 in most encoders.

    Args:
        channels: of each map, three or more.
        strides: of each map.
        class_count: K.
        fine: channels to which the finest map is projected; the paper's is 8.
        middle: channels of the sum; the paper's is 128.
        width: channels after the sum and after the concatenation; the paper's is 64.

    Raises:
        InputError: for fewer than three maps, or a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        fine: int = 8,
        middle: int = 128,
        width: int = 64,
    ) -> None:
        for name, value in {"fine": fine, "middle": middle, "width": width}.items():
            within(f"RegSegDecoder.{name}", value, 1)
        if len(channels) < 3:
            raise InputError(f"regseg needs three maps; this encoder has {len(channels)}")
        super().__init__(channels, strides, class_count)
        self.from_fine = ConvNormAct(channels[0], fine, kernel=1)
        self.from_middle = ConvNormAct(channels[1], middle, kernel=1)
        self.from_coarse = ConvNormAct(channels[-1], middle, kernel=1)
        self.mix_middle = ConvNormAct(middle, width)
        self.mix_fine = ConvNormAct(width + fine, width)
        self.classifier = nn.Conv2d(width, class_count, 1)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        fused = self.fuse(maps)
        return Decoded(fused, self.classifier(fused))

    def fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """The input of the classifier, at the stride of the finest map."""
        fine, middle = self.from_fine(maps[0]), self.from_middle(maps[1])
        middle = self.mix_middle(middle + resize(self.from_coarse(maps[-1]), middle.shape[-2:]))
        fused: Tensor = self.mix_fine(torch.cat([resize(middle, fine.shape[-2:]), fine], dim=1))
        return fused
