"""EfficientViT-Seg B0 to B2: linear attention at several scales, and a light head; 0.7, 4.8 and 15.3 M parameters.

A ReLU replaces the softmax, so the cost of attention is linear in the number of cells. Depthwise convolutions of
queries, keys and values add larger scales. The encoder is timm's, the head is Hardy's.

Source: Cai, Li, Hu, Gan and Han, "EfficientViT: lightweight multi-scale attention for high-resolution dense
prediction", ICCV 2023, section 3 and table 1.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.networks.decoders.efficientvit import EfficientViTHead
from hardy.networks.parts.pyramid import Pyramid
from hardy.types import Outputs

__all__ = ["EfficientViT"]

HEADS = {"b0": (32, 1), "b1": (64, 3), "b2": (96, 3)}
"""Variant -> width and depth of the head."""


class EfficientViT(Network):
    """Features: ``stage1`` .. ``stage4``, the encoder's maps at strides 4, 8, 16, 32 (16, 32, 64, 128 channels for B0,
    twice and three times as many for B1 and B2). Coarse logits at stride 8; the embedding is the head's refined sum of
    the last three maps.

    Args:
        label_space: the classes predicted.
        variant: size of the encoder and the head.
        encoder_weights: None for random initialisation; a file with timm's names; ``"timm"`` or a timm tag.
        dropout: share of channels zeroed before the classifier while training.

    Raises:
        InputError: for a number out of range, or weights that do not fit or cannot be downloaded.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["b0", "b1", "b2"] = "b0",
        encoder_weights: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(label_space)
        self.backbone = Pyramid(f"efficientvit_{variant}", encoder_weights, None)
        width, depth = HEADS[variant]
        channels, strides = self.backbone.channels, self.backbone.strides
        self.head = EfficientViTHead(channels, strides, len(label_space), width=width, depth=depth, dropout=dropout)
        self.pretrained = encoder_weights is not None

    def encoder(self) -> Sequence[nn.Module]:
        """The encoder."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps: list[Tensor] = self.backbone(self.normalise(images))
        embedding, logits, _ = self.head.decode(maps)
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=embedding)
