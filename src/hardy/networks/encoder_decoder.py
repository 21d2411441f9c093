"""Any encoder of timm or Hardy with any decoder.

The maps of a convolutional encoder are its stages from stride 4 on, or from 2. Those of a plain vision transformer are
the outputs of four blocks, spaced evenly over its depth, or of the blocks named; positions are interpolated. Any image
size works: the image is resized to the nearest multiples of the coarsest stride; see `Network.multiple`. Without it
"same" padding would shift all cells, because its zeros stand before or after a map as its side is odd or even.

Source: Ronneberger, Fischer and Brox, MICCAI 2015, for the split into encoder and decoder; the encoders are
timm's (Wightman, 2019) and those of `hardy.networks.encoders`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss, resize
from hardy.networks.building.weights import initialise
from hardy.networks.encoders.base import Encoder, family_of, load
from hardy.networks.parts.encoder_errors import one_line_errors, size_errors
from hardy.networks.parts.plain import Plain, checked
from hardy.networks.parts.pyramid import Pyramid
from hardy.registry import DECODERS
from hardy.types import Outputs, Terms

__all__ = ["EncoderDecoder"]


class EncoderDecoder(Network):
    """Features: ``stage1`` .. ``stageN``, the encoder's maps, finest first. The decoder gives the embedding and the
    coarse logits, at its stride.

    Args:
        label_space: the classes predicted.
        encoder: a size of an encoder of ``hardy list encoder``, or a timm model.
        encoder_weights: None for random initialisation; a weights file, also one of a foundation model with the names
            of its release; a short name of ``hardy list weights``; ``"timm"`` or a timm tag; ``"hf-hub:OWNER/NAME"``.
        output_stride: stride of the encoder's last map, reached by dilation; None does not change the encoder.
        finest_stride: stride of the first encoder map that the decoder gets; 2 is for thin structures.
        decoder: a decoder of ``hardy list decoder``.
        decoder_options: its options.
        aux: in training, a second head (3x3 convolution and classifier) on the second to last map.
        vit: options of a plain transformer of timm: ``blocks``, the indices of the blocks whose outputs are the maps;
            ``final_norm``, whether the maps go through the norm after the last block, True by default; ``patch``, the
            side of the patches in pixels, for which the patch embedding and the positions are resized.

    Raises:
        InputError: for an unknown encoder or one that does not fit the decoder, and for weights that do not fit or
            cannot be downloaded.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        output_stride: Literal[8, 16, 32] | None = None,
        finest_stride: Literal[2, 4] = 4,
        decoder: str = "deeplabv3plus",
        decoder_options: Mapping[str, Any] | None = None,
        aux: bool = False,
        vit: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(label_space)
        self.backbone = _backbone(encoder, encoder_weights, output_stride, finest_stride, checked(vit))
        channels, strides = self.backbone.channels, self.backbone.strides
        self.multiple = strides[-1]
        with one_line_errors(
            f"decoder {decoder!r} does not fit encoder {encoder!r}", "choose another, or other options"
        ):
            self.decoder = DECODERS.build(
                decoder,
                {"channels": channels, "strides": strides, "class_count": len(label_space)},
                **(decoder_options or {}),
            )
            if self.decoder.joins:
                if not isinstance(self.backbone, Pyramid):
                    raise InputError(
                        f"decoder {decoder!r}: encoder {encoder!r} is not a plain vision transformer of timm"
                    )
                self.decoder.take_over(*self.backbone.give(self.decoder.count))
        self.aux = _auxiliary(channels[-2:][0], len(label_space)) if aux else None
        self.pretrained = encoder_weights is not None

    def encoder(self) -> Sequence[nn.Module]:
        """The encoder, including the last blocks and the norm that the decoder has taken over."""
        taken = (self.decoder.blocks, self.decoder.norm) if self.decoder.joins else ()
        return (self.backbone, *taken)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        with size_errors(self.backbone.name, self.backbone, self.backbone, images):
            maps = self.backbone(x)
        embedding, coarse, own = self.decoder.decode(maps)
        maps = maps[: len(self.backbone.channels)]
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        extras = dict(own)
        if self.aux is not None and self.training:
            extras["aux_stage"] = self.aux(maps[-2:][0])
        return Outputs(resize(coarse, images.shape[-2:]), features, extras, coarse=coarse, embedding=embedding)

    def link(self, names: Sequence[str]) -> None:
        """See `Network.link`."""
        super().link(names)
        self.decoder.read_queries(self._linked_queries)

    def _linked_queries(self) -> Tensor:
        queries = self.queries
        assert queries is not None, "link names modules"
        return queries

    def losses(self, outputs: Outputs, labels: Tensor, pixel_loss: PixelLoss) -> Terms:
        """See `Network.losses`. A decoder with its own losses, such as ``mask2former``, replaces ``segmentation`` by
        them; ``pixel_loss`` is then used for the auxiliary head only."""
        terms = super().losses(outputs, labels, pixel_loss)
        own = self.decoder.losses(outputs.extras, labels)
        return terms if own is None else {**terms, **own}


def _backbone(
    name: str, weights: str | None, output_stride: int | None, finest: int, plain: Plain
) -> Pyramid | Encoder:
    if family_of(name) is None:
        return Pyramid(name, weights, output_stride, finest=finest, plain=plain)
    plain.refuse(name)
    if finest != 4:
        raise InputError(f"encoder {name!r} takes no finest_stride: its strides are 4, 8, 16, 32; leave it out")
    if output_stride is not None:
        raise InputError(f"encoder {name!r} takes no output_stride: its strides are 4, 8, 16, 32; leave it out")
    return load(name, weights)


def _auxiliary(channels: int, class_count: int) -> nn.Sequential:
    width = max(channels // 4, 1)
    head = nn.Sequential(ConvNormAct(channels, width), nn.Dropout(0.1), nn.Conv2d(width, class_count, 1))
    initialise(head)
    return head
