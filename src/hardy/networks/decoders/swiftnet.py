"""SwiftNet's ladder decoder: pyramid pooling of the last map, then sums with the next finer map, step by step.

Every unit is batch norm, ReLU, convolution. So the decoder expects maps before their ReLU; other maps work too.

Source: Orsic, Kreso, Bevandic and Segvic, "In defense of pre-trained ImageNet architectures for real-time semantic
segmentation of road-driving images", CVPR 2019, section 3 and figure 2.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hardy.blocks.aspect_pooling import AspectPooling
from hardy.blocks.ladder_step import LadderStep
from hardy.blocks.norm_act_conv import NormActConv
from hardy.errors import within
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["SwiftNetDecoder"]


class SwiftNetDecoder(Decoder):
    """Logits at the stride of the finest map.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        width: channels of the ladder; the paper's is 128.

    Raises:
        InputError: for a width below 3; each grid of the pooling needs a channel.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], class_count: int, *, width: int = 128) -> None:
        within("SwiftNetDecoder.width", width, 3)
        super().__init__(channels, strides, class_count)
        self.pyramid = AspectPooling(channels[-1], width)
        self.ladder = nn.ModuleList(LadderStep(skip, width) for skip in reversed(channels[:-1]))
        self.head = NormActConv(width, class_count, bias=True)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        fused = self.fuse(maps)["fused"]
        return Decoded(fused, self.head(fused))

    def fuse(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """``pyramid``, the pooled map at the stride of the last map, and ``fused``, the input of the classifier."""
        x = pooled = self.pyramid(maps[-1])
        for step, skip in zip(self.ladder, reversed(maps[:-1]), strict=True):
            x = step(x, skip)
        return {"pyramid": pooled, "fused": x}
