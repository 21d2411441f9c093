"""The part of Fast-SCNN after its branches: pyramid pooling of the last map, a sum with a fine map, and light layers.

Source: Poudel, Liwicki and Cipolla, "Fast-SCNN: fast semantic segmentation network", BMVC 2019, sections 3.2.2 to 3.2.4
and table 1.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hardy.blocks.depthwise_separable import DepthwiseSeparable
from hardy.blocks.fusion_unit import FusionUnit
from hardy.blocks.pyramid_pooling import PyramidPooling
from hardy.errors import within
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder, enough

__all__ = ["FastSCNNDecoder"]


class FastSCNNDecoder(Decoder):
    """Logits at the stride of the fine map used.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        width: channels of the context, of the sum and of the layers after it; the paper's is 128.
        maps: position of the fine map counted from the end, 2 or more; 3 is the map at stride 8 of an encoder that ends
            at stride 32, as in the paper.
        dilation: dilation of the fusion's depthwise convolution; the paper's is 4.
        dropout: share of values zeroed before the classifier while training.

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
        maps: int = 3,
        dilation: int = 1,
        dropout: float = 0.1,
    ) -> None:
        within("FastSCNNDecoder.width", width, 1)
        within("FastSCNNDecoder.dilation", dilation, 1)
        within("FastSCNNDecoder.dropout", dropout, 0, 1)
        enough("fast_scnn", maps, channels, least=2)
        super().__init__(channels, strides, class_count)
        self.place = -maps
        self.context = PyramidPooling(channels[-1], width)
        self.fusion = FusionUnit(channels[-maps], width, width, dilation=dilation)
        self.filter = nn.Sequential(DepthwiseSeparable(width, width), DepthwiseSeparable(width, width))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, class_count, 1)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        fused = self.fusion(maps[self.place], self.context(maps[-1]))
        return Decoded(fused, self.classifier(self.dropout(self.filter(fused))))
