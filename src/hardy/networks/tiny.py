"""A network of 37 thousand parameters with one block of each kind, for demonstrations and tests.

It has a strided stem, depthwise separable convolutions, inverted residuals, a sum of two scales and an optional
auxiliary head, so it has every kind of channel coupling of the larger networks and runs in milliseconds.

Source: Hardy's own; its blocks are those of Howard et al., arXiv:1704.04861, and Sandler et al., CVPR 2018.
"""

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.depthwise_separable import DepthwiseSeparable
from hardy.blocks.inverted_residual import InvertedResidual
from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.types import Outputs

__all__ = ["Tiny"]


class Tiny(Network):
    """Features: ``detail`` (B, C, H/4, W/4), ``context`` (B, 2C, H/8, W/8), ``fused`` (B, C, H/4, W/4), C = width,
    the embedding. Coarse logits at stride 4.

    Args:
        label_space: the classes predicted.
        width: C, the channels at stride 4.
        aux: in training, a second head on ``detail``.

    Raises:
        InputError: for a number out of range.
    """

    multiple = 8
    least_size = 16

    def __init__(self, label_space: LabelSpace, *, width: int = 32, aux: bool = False) -> None:
        within("Tiny.width", width, 1)
        super().__init__(label_space)
        wide = 2 * width
        self.detail = nn.Sequential(
            ConvNormAct(3, width, stride=2),
            DepthwiseSeparable(width, width, stride=2),
            InvertedResidual(width, width, expansion=2),
        )
        self.context = nn.Sequential(
            DepthwiseSeparable(width, wide, stride=2),
            InvertedResidual(wide, wide, expansion=2),
            DepthwiseSeparable(wide, wide),
        )
        self.narrow = ConvNormAct(wide, width, kernel=1, act=False)
        self.smooth = DepthwiseSeparable(width, width)
        self.head = nn.Conv2d(width, len(label_space), 1)
        self.aux = nn.Conv2d(width, len(label_space), 1) if aux else None
        initialise(self)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        detail = self.detail(self.normalise(images))
        context = self.context(detail)
        fused = self.smooth(detail + resize(self.narrow(context), detail.shape[-2:]))
        logits = self.head(fused)
        extras = {"aux_detail": self.aux(detail)} if self.aux is not None and self.training else {}
        features = {"detail": detail, "context": context, "fused": fused}
        return Outputs(resize(logits, images.shape[-2:]), features, extras, coarse=logits, embedding=fused)
