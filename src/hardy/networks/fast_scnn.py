"""Fast-SCNN: two branches that share their first layers; 1.14 M parameters.

A detail branch at stride 8 and a context branch at stride 32 with pyramid pooling are added and classified at stride 8.
The number of convolution weights (1.11 M) is the paper's.

Source: Poudel, Liwicki and Cipolla, "Fast-SCNN: fast semantic segmentation network", BMVC 2019, table 1.
"""

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.depthwise_separable import DepthwiseSeparable
from hardy.blocks.fusion_unit import FusionUnit
from hardy.blocks.inverted_residual import InvertedResidual
from hardy.blocks.pyramid_pooling import PyramidPooling
from hardy.data.label_spaces import LabelSpace
from hardy.errors import within
from hardy.networks.base import Network
from hardy.networks.building.weights import initialise
from hardy.types import Outputs

__all__ = ["FastSCNN"]


class FastSCNN(Network):
    """Fast-SCNN; at width 1 its features are ``detail`` (B, 64, H/8, W/8), ``context`` (B, 128, H/32, W/32),
    ``fused`` (B, 128, H/8, W/8), the embedding. Coarse logits at stride 8.

    Args:
        label_space: the classes predicted.
        width: channels of every layer as a multiple of the paper's, rounded to a multiple of 8.
        aux: in training, a second head on ``detail``; its weight in the paper is 0.4.
        ffm_dilation: dilation of the fusion's depthwise convolution; 4 is the paper's.
        dropout: share of values zeroed before each classifier while training.
        padding: padding of the first convolution; 0 in the most used public release.
        align_corners: resize maps with aligned corners, as in that release, instead of half-pixel centres; also the
            logits of both heads in the losses.

    Raises:
        InputError: for a number out of range.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        width: float = 1.0,
        aux: bool = False,
        ffm_dilation: int = 1,
        dropout: float = 0.1,
        padding: int = 1,
        align_corners: bool = False,
    ) -> None:
        within("FastSCNN.width", width, 0.1, 8)
        within("FastSCNN.ffm_dilation", ffm_dilation, 1)
        within("FastSCNN.dropout", dropout, 0, 1)
        within("FastSCNN.padding", padding, 0, 1)
        super().__init__(label_space)
        self.align_corners = align_corners
        a, b, c, d, e = (max(8, round(width * channels / 8) * 8) for channels in (32, 48, 64, 96, 128))
        self.detail = nn.Sequential(
            ConvNormAct(3, a, stride=2, padding=padding),
            DepthwiseSeparable(a, b, stride=2),
            DepthwiseSeparable(b, c, stride=2),
        )
        self.context = nn.Sequential(
            *_bottlenecks(c, c, stride=2),
            *_bottlenecks(c, d, stride=2),
            *_bottlenecks(d, e, stride=1),
            PyramidPooling(e, e, align_corners=align_corners),
        )
        self.fusion = FusionUnit(c, e, e, dilation=ffm_dilation, align_corners=align_corners)
        self.head = nn.Sequential(
            DepthwiseSeparable(e, e), DepthwiseSeparable(e, e), nn.Dropout(dropout), nn.Conv2d(e, len(label_space), 1)
        )
        self.aux = (
            nn.Sequential(ConvNormAct(c, a), nn.Dropout(dropout), nn.Conv2d(a, len(label_space), 1)) if aux else None
        )
        initialise(self)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        detail = self.detail(self.normalise(images))
        context = self.context(detail)
        fused = self.fusion(detail, context)
        logits = self.head(fused)
        extras = {"aux_detail": self.aux(detail)} if self.aux is not None and self.training else {}
        features = {"detail": detail, "context": context, "fused": fused}
        full_size = self.enlarged(logits, images.shape[-2:])
        return Outputs(full_size, features, extras, coarse=logits, embedding=fused)


def _bottlenecks(in_channels: int, out_channels: int, *, stride: int) -> list[InvertedResidual]:
    """Three inverted residuals; the first changes width and size."""
    first = InvertedResidual(in_channels, out_channels, stride=stride)
    return [first, *(InvertedResidual(out_channels, out_channels) for _ in range(2))]
