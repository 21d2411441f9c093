"""FANet's decoder: fast attention on each map, a top-down path, and the finest map joined with a coarse one.

The cost of attention without softmax is linear in the number of cells, so it also suits fine maps.

Source: Hu, Perazzi, Heilbron, Wang, Lin, Saenko and Sclaroff, "Real-time semantic segmentation with fast attention",
IEEE Robotics and Automation Letters 2021, section III and figure 2.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hardy.blocks.conv_norm_leaky import ConvNormLeaky
from hardy.blocks.fast_attention import FastAttention
from hardy.errors import within
from hardy.networks.base import resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder, enough

__all__ = ["FANetDecoder"]


class FANetDecoder(Decoder):
    """Logits at the stride of the finest map used.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        width: channels to which the finest and the second to last map used are projected; the paper's is 128.
        queries: channels of the attention's queries and keys; the paper's is 32.
        maps: the number of maps used, counted from the last, 2 or more. The paper uses the four maps from stride 8 on;
            an encoder that ends at stride 32 has three of them.

    Raises:
        InputError: for an encoder with too few maps, or a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        width: int = 128,
        queries: int = 32,
        maps: int = 3,
    ) -> None:
        within("FANetDecoder.width", width, 1)
        within("FANetDecoder.queries", queries, 1)
        enough("fanet", maps, channels, least=2)
        super().__init__(channels, strides, class_count)
        used = channels[-maps:]
        self.attention = nn.ModuleList(FastAttention(wide, width=queries) for wide in used)
        self.down = nn.ModuleList(ConvNormLeaky(coarse, fine, 1) for fine, coarse in pairwise(used))
        self.fine = ConvNormLeaky(used[0], width, 3)
        self.coarse = ConvNormLeaky(used[-2], width, 3)
        self.mix = ConvNormLeaky(2 * width, 2 * width, 3)
        self.classifier = nn.Conv2d(2 * width, class_count, 1, bias=False)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        used = maps[-len(self.attention) :]
        seen: list[Tensor] = [attention(x) for attention, x in zip(self.attention, used, strict=True)]
        for level in reversed(range(len(self.down))):
            seen[level] = seen[level] + resize(self.down[level](seen[level + 1]), seen[level].shape[-2:])
        fine, coarse = self.fine(seen[0]), self.coarse(seen[-2])
        mixed = self.mix(torch.cat([resize(coarse, fine.shape[-2:]), fine], dim=1))
        return Decoded(mixed, self.classifier(mixed))
