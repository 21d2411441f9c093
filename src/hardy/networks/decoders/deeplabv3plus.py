"""DeepLabV3+: atrous spatial pyramid pooling on the last map, joined with the finest map.

The layers are segmentation_models_pytorch's. The context is resized to the size of the finest map, so every image size
works.

Source: Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-decoder with atrous separable convolution for semantic image
segmentation", ECCV 2018, figure 2.
"""

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import Tensor, nn

from hardy.errors import InputError, within
from hardy.networks.base import resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.base import Decoded, Decoder

__all__ = ["DeepLabV3Plus"]


class DeepLabV3Plus(Decoder):
    """Logits at the stride of the finest map.

    A batch norm follows the global pooling. In a network from `hardy.create` it uses its running statistics for a batch
    of one image; a decoder that is built alone needs two images per batch in training.

    Args:
        channels: of each map.
        strides: of each map.
        class_count: K.
        width: channels of every layer except the projection of the finest map, which has 48.
        atrous_rates: three dilations; 6, 12, 18 for an encoder with ``output_stride`` 16, twice that for 8.
        separable: depthwise separable atrous convolutions.
        dropout: share of values zeroed after the pooling while training.

    Raises:
        InputError: if all maps have the same stride, if there are not three rates, or for a number out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        class_count: int,
        *,
        width: int = 256,
        atrous_rates: Sequence[int] = (6, 12, 18),
        separable: bool = True,
        dropout: float = 0.5,
    ) -> None:
        within("DeepLabV3Plus.width", width, 1)
        within("DeepLabV3Plus.dropout", dropout, 0, 1)
        super().__init__(channels, strides, class_count)
        if len(set(strides)) == 1:
            raise InputError(f"deeplabv3plus needs maps of several strides; this encoder has only {strides[0]}")
        if len(atrous_rates) != 3:
            raise InputError(f"deeplabv3plus atrous_rates={list(atrous_rates)}: give three")
        within("DeepLabV3Plus.atrous_rates", min(atrous_rates), 1)
        self.layers = DeepLabV3PlusDecoder(
            encoder_channels=[0, 0, channels[0], channels[-1]],
            encoder_depth=3,
            out_channels=width,
            atrous_rates=tuple(atrous_rates),
            output_stride=16,
            aspp_separable=separable,
            aspp_dropout=dropout,
        )
        self.classifier = nn.Conv2d(width, class_count, 1)
        initialise(self)

    def decode(self, maps: Sequence[Tensor]) -> Decoded:
        """See `Decoder.decode`."""
        fine = self.layers.block1(maps[0])
        context = resize(self.layers.aspp(maps[-1]), fine.shape[-2:])
        mixed = self.layers.block2(torch.cat([context, fine], dim=1))
        return Decoded(mixed, self.classifier(mixed))
