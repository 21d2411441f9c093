"""PP-LiteSeg T and B: an STDC encoder and a light decoder of attention fusions; 8.0 and 12.2 M parameters.

Source: Peng et al., "PP-LiteSeg: a superior real-time semantic segmentation model", arXiv:2204.02681, 2022, section 3
and table 1.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.pp_liteseg import PPLiteSegHead
from hardy.networks.encoders.base import load
from hardy.types import Outputs

__all__ = ["PPLiteSeg"]

VARIANTS = {"t": ("stdc1", (32, 64, 128)), "b": ("stdc2", (64, 96, 128))}
"""Name -> encoder, and channels of the decoder at strides 8, 16 and 32."""

HEAD = 64
"""Channels of the auxiliary heads."""


class PPLiteSeg(Network):
    """Features: ``stage1`` .. ``stage4`` (64, 256, 512, 1024 channels at strides 4, 8, 16, 32), ``projected8``,
    ``projected16``, ``projected32`` (64 for T and 96 for B, 128 and 128 channels), the decoder's ``fused8``,
    ``fused16``, ``fused32`` (32 for T and 64 for B, 64 and 96, 128 channels). Coarse logits at stride 8;
    ``fused8`` is the embedding.

    Args:
        label_space: the classes predicted.
        variant: ``"t"`` on STDC1 or ``"b"`` on STDC2.
        encoder_weights: None for random initialisation; a file of the STDC authors' ImageNet weights.
        grids: sides of the pyramid pooling's grids.
        dropout: share of channels zeroed before the classifier while training.
        aux: in training, two more heads of weight 1, on the decoder's maps at strides 16 and 32, as in the authors'
            release.

    Raises:
        InputError: for a number out of range, or weights that are not a file or do not fit.
    """

    multiple = 32
    auxiliary_weight = 1.0

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        variant: Literal["t", "b"] = "t",
        encoder_weights: str | None = None,
        grids: Sequence[int] = (1, 2, 4),
        dropout: float = 0.0,
        aux: bool = False,
    ) -> None:
        super().__init__(label_space)
        name, widths = VARIANTS[variant]
        self.backbone = load(name, encoder_weights)
        channels, strides = self.backbone.channels, self.backbone.strides
        self.decoder = PPLiteSegHead(channels, strides, len(label_space), widths=widths, grids=grids, dropout=dropout)
        self.aux = nn.ModuleDict()
        if aux:
            for stride, width in zip(strides[2:], widths[1:], strict=True):
                mix, classifier = ConvNormAct(width, HEAD), nn.Conv2d(HEAD, len(label_space), 1, bias=False)
                self.aux[f"fused{stride}"] = nn.Sequential(mix, classifier)
                initialise(mix)
                nn.init.normal_(classifier.weight, std=HEAD**-0.5)  # no ReLU follows
        self.pretrained = encoder_weights is not None

    def encoder(self) -> Sequence[nn.Module]:
        """The STDC encoder."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps: list[Tensor] = self.backbone(self.normalise(images))
        projected = self.decoder.project(maps)
        fused = self.decoder.fuse(maps[-1], projected)
        logits = self.decoder.classify(fused[0])
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        strides = self.backbone.strides[1:]
        features |= {f"projected{stride}": x for stride, x in zip(strides, projected, strict=True)}
        features |= {f"fused{stride}": x for stride, x in zip(strides, fused, strict=True)}
        extras = {f"aux_{name}": head(features[name]) for name, head in self.aux.items()} if self.training else {}
        return Outputs(resize(logits, images.shape[-2:]), features, extras, coarse=logits, embedding=fused[0])
