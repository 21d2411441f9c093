"""LinkNet's decoder: blocks that reduce channels, double the map by a transposed convolution and expand channels.

From the coarsest map on, each block produces the channels and the size of the next finer map, which is added. Two
transposed convolutions then enlarge the finest map to the size of the image.

Source: Chaurasia and Culurciello, "LinkNet: exploiting encoder representations for efficient semantic segmentation",
VCIP 2017, section III and figures 1 and 3.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.transposed_to import TransposedTo
from hardy.errors import InputError
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["LinkNetDecoder"]


class LinkNetDecoder(Decoder):
    """Logits at four times the size of the finest map, stride 1.

    Args:
        channels: of each map, multiples of 4.
        strides: of each map: 4 for the finest, each further one equal to the one before or twice that.
        class_count: K.

    Raises:
        InputError: for maps at other strides or of other widths.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], class_count: int) -> None:
        super().__init__(channels, strides, class_count)
        if strides[0] != 4 or any(coarse not in (fine, 2 * fine) for fine, coarse in pairwise(strides)):
            have = ", ".join(map(str, strides))
            raise InputError(f"linknet needs strides that start at 4 and double or stay; this encoder has {have}")
        if any(width % 4 for width in channels):
            have = ", ".join(map(str, channels))
            raise InputError(f"linknet needs maps whose channels are multiples of 4; this encoder has {have}")
        steps = list(zip(pairwise(channels), pairwise(strides), strict=True))
        self.blocks = nn.ModuleList(
            _Block(wide, narrow, stride=coarse // fine) for (narrow, wide), (fine, coarse) in reversed(steps)
        )
        width = channels[0] // 2
        self.up = nn.Sequential(TransposedTo(channels[0], width, 3, bias=True), nn.BatchNorm2d(width), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = TransposedTo(width, class_count, bias=True)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        x = maps[-1]
        for block, skip in zip(self.blocks, reversed(maps[:-1]), strict=True):
            x = skip + block(x, skip.shape[-2:])
        return Decoded(x, self.classifier(self.mix(self.up(x))))


class _Block(nn.Module):
    """``(B, C_in, h, w) -> (B, C_out, H, W)``: 1x1 to a quarter of the channels, transposed 3x3, 1x1; H and W given."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        narrow = in_channels // 4
        self.reduce = ConvNormAct(in_channels, narrow, kernel=1)
        self.up = TransposedTo(narrow, narrow, 3, stride=stride)
        self.norm = nn.BatchNorm2d(narrow)
        self.widen = ConvNormAct(narrow, out_channels, kernel=1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        y: Tensor = self.widen(F.relu(self.norm(self.up(self.reduce(x), size))))
        return y
