"""A light U-Net: up from the coarsest map, at each finer one a concatenation and two depthwise separable convolutions.

All levels are equally wide, where the original doubles its width from level to level, and the maps are resized
bilinearly, where the original has transposed convolutions. Meant for thin structures: give the encoder
``finest_stride: 2``.

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
        stride: where it ends: at one of ``strides``, and finer maps are not used; or at half the finest of them, to
            which it goes without a map. None for the finest map.

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
            told = ", ".join(map(str, dict.fromkeys(ends)))
            raise InputError(f"unet stride={stride}: it can end at {told} with this encoder")
        self.first = next((place for place, one in enumerate(strides) if one >= stride), 0)
        # Without a batch norm: of a small image the coarsest map has one cell, which has no variance.
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
