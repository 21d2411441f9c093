"""A light U-Net decoder: at each finer map a concatenation and two depthwise separable convolutions.

All levels have the same width, while the original doubles its width from level to level. Maps are resized bilinearly,
while the original has transposed convolutions. The decoder is made for thin structures: set ``finest_stride: 2`` for
the encoder.

Source: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015,
section 2; the separable convolutions of Howard et al., "MobileNets", arXiv:1704.04861, 2017.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardy.blocks.depthwise_separable import DepthwiseSeparable
from hardy.errors import InputError, within
from hardy.networks.base import resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["UNet"]


class UNet(Decoder):
    """Logits at the stride of the finest map, or at another one.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        width: channels of every level.
        stride: the stride of the logits: one of ``strides`` (finer maps are then not used), or half the finest of them
            (a last level without an encoder map). None for the stride of the finest map.

    Raises:
        InputError: for a width below 1, or another stride.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        width: int = 48,
        stride: int | None = None,
    ) -> None:
        within("UNet.width", width, 1)
        super().__init__(channels, strides, class_count)
        ends = [strides[0] // 2, *strides] if strides[0] > 1 else list(strides)
        stride = strides[0] if stride is None else stride
        if stride not in ends:
            allowed = ", ".join(map(str, dict.fromkeys(ends)))
            raise InputError(f"unet stride={stride}: it can end at {allowed} with this encoder")
        self.first = next((place for place, one in enumerate(strides) if one >= stride), 0)
        # No batch norm here: the coarsest map of a small image has one cell, and one value has no variance.
        self.bottom = nn.Conv2d(channels[-1], width, 1)
        self.levels = nn.ModuleList(_level(width + skip, width) for skip in reversed(channels[self.first : -1]))
        self.last = _level(width, width) if stride < strides[0] else None
        self.classifier = nn.Conv2d(width, class_count, 1)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        x = self.bottom(maps[-1])
        for level, skip in zip(self.levels, reversed(maps[self.first : -1]), strict=True):
            x = level(torch.cat([resize(x, skip.shape[-2:]), skip], dim=1))
        if self.last is not None:
            height, width = x.shape[-2:]
            x = self.last(resize(x, (2 * height, 2 * width)))
        return Decoded(x, self.classifier(x))


def _level(in_channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(DepthwiseSeparable(in_channels, width), DepthwiseSeparable(width, width))
