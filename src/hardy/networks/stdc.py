"""STDC1-Seg and STDC2-Seg: one branch, whose fine maps learn details from a second head; 8.3 and 12.3 M parameters.

Attention refines the maps at strides 32 and 16. The global average is added to the coarser one; both are resized to
stride 8 and fused with the encoder's map at that stride. In training a head on the encoder's map predicts the details
of the labels; this replaces BiSeNet's second branch.

Source: Fan, Lai, Huang, Wei, Chai, Luo and Wei, "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021,
sections 3.2 and 3.3.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, PixelLoss, resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.stdc import STDCDecoder
from hardy.networks.encoders.base import load
from hardy.networks.parts.detail import detail_losses
from hardy.types import Outputs, Terms

__all__ = ["STDC"]


class STDC(Network):
    """Features: ``stage1`` .. ``stage4`` (64, 256, 512, 1024 channels at strides 4, 8, 16, 32), ``context16`` and
    ``context8`` (128 channels at strides 16 and 8), ``fused`` (B, 256, H/8, W/8), the embedding. Coarse logits at
    stride 8.

    Args:
        label_space: the classes predicted.
        variant: number of modules in the encoder, 6 or 12.
        encoder_weights: None for random initialisation; a file of the authors' ImageNet weights.
        aux: in training, two more heads, on ``context16`` and ``context8``.
        detail: in training, a head on ``stage2`` that predicts the details of the labels; its logits are
            ``extras["detail"]`` (B, 1, H/8, W/8).

    Raises:
        InputError: for weights that are not a file or do not fit.
    """

    multiple = 32
    auxiliary_weight = 1.0

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["stdc1", "stdc2"] = "stdc1",
        encoder_weights: str | None = None,
        aux: bool = False,
        detail: bool = False,
    ) -> None:
        super().__init__(label_space)
        self.backbone = load(variant, encoder_weights)
        self.decoder = STDCDecoder(self.backbone.channels, self.backbone.strides, len(label_space))
        self.aux16 = _head(128, 64, len(label_space)) if aux else None
        self.aux8 = _head(128, 64, len(label_space)) if aux else None
        self.detail = _head(256, 64, 1) if detail else None
        for head in (self.aux16, self.aux8, self.detail):
            if head is not None:
                initialise(head)
        self.pretrained = encoder_weights is not None

    def encoder(self) -> Sequence[nn.Module]:
        """The STDC encoder."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps: list[Tensor] = self.backbone(self.normalise(images))
        fused = self.decoder.fuse(maps)
        context16, context8 = fused["context_middle"], fused["context_fine"]
        logits = self.decoder.head(fused["fused"])
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        features |= {"context16": context16, "context8": context8, "fused": fused["fused"]}
        heads = {"aux_context16": (self.aux16, context16), "aux_context8": (self.aux8, context8)}
        heads |= {"detail": (self.detail, maps[1])}
        extras = {name: head(x) for name, (head, x) in heads.items() if head is not None and self.training}
        full_size = resize(logits, images.shape[-2:])
        return Outputs(full_size, features, extras, coarse=logits, embedding=fused["fused"])

    def losses(self, outputs: Outputs, labels: Tensor, pixel_loss: PixelLoss) -> Terms:
        """See `Network.losses`; with a detail head also ``detail_bce`` and ``detail_dice``, all of weight 1."""
        terms = super().losses(outputs, labels, pixel_loss)
        if "detail" in outputs.extras:
            terms |= detail_losses(resize(outputs.extras["detail"], labels.shape[-2:]), labels)
        return terms


def _head(in_channels: int, width: int, class_count: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(in_channels, width), nn.Conv2d(width, class_count, 1))
