"""ICNet: a cascade of three resolutions, the deep layers on the smallest; ResNet-50 at half width, 6.7 M parameters.

Three convolutions process the image at full size. The first layers of a dilated ResNet process the image at half size,
and its deep layers a map that is halved again. Pyramid pooling and two fusion units join the three at stride 8.

Source: Zhao, Qi, Shen, Shi and Jia, "ICNet for real-time semantic segmentation on high-resolution images", ECCV 2018,
sections 3.2 and 3.3, figures 2 and 3, equation 1; layers of the published network with half of its filters.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.cascade_fusion import CascadeFusion
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.sizes import cells
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss, resize
from hardy.networks.building.weights import initialise
from hardy.networks.parts.dilated_resnet import DilatedResNet18, DilatedResNet50, halved
from hardy.networks.parts.resnet import fill_resnet
from hardy.types import Outputs, Terms

__all__ = ["ICNet"]

GRIDS = (1, 2, 3, 6)
"""Sides of the pooling grids."""

WEIGHTS = {"aux_quarter": 0.16, "aux_half": 0.4}
"""Weights of the auxiliary terms, for the maps at strides 16 and 8."""


class ICNet(Network):
    """Features, at width 0.5: ``full`` (B, 64, H/8, W/8), ``half`` (B, 256, H/16, W/16), ``quarter`` (B, 1024, H/32,
    W/32) of the three resolutions; ``fused`` (B, 128, H/4, W/4), the embedding. Coarse logits at stride 4.

    Args:
        label_space: the classes predicted.
        width: channels of every layer as a multiple of the paper's network before its filters were pruned.
        backbone: encoder of the two smaller resolutions: ``"resnet50"``, which starts with three 3x3 convolutions, as
            published, or ``"resnet18"``, which starts with a 7x7 convolution; ImageNet weights fit it at width 1.
        encoder_weights: None for random initialisation; for ``"resnet18"`` at width 1 a file of its weights with the
            names of torchvision or timm, ``"timm"`` or a timm tag.
        aux: in training, a head on the coarser map of each fusion unit, at strides 16 and 8, with labels of that size;
            their weights in the paper are 0.16 and 0.4.

    Raises:
        InputError: for a width out of range, or weights that do not fit.
    """

    multiple = 32

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        width: float = 0.5,
        backbone: Literal["resnet50", "resnet18"] = "resnet50",
        encoder_weights: str | None = None,
        aux: bool = False,
    ) -> None:
        within("ICNet.width", width, 0.125, 2)
        if encoder_weights is not None and (backbone != "resnet18" or width != 1):
            raise InputError(
                f"ICNet: encoder_weights={encoder_weights!r} fit backbone='resnet18' at width=1, not {backbone!r} at "
                f"width={width}"
            )
        super().__init__(label_space)
        narrow, fine, wide = (round(channels * width) for channels in (64, 128, 256))
        self.full = nn.Sequential(
            ConvNormAct(3, narrow, stride=2), ConvNormAct(narrow, narrow, stride=2), ConvNormAct(narrow, fine, stride=2)
        )
        self.backbone = DilatedResNet18(width) if backbone == "resnet18" else DilatedResNet50(width)
        middle, deep = self.backbone.channels
        self.narrow = ConvNormAct(deep, 2 * wide, kernel=1)
        self.fusion = nn.ModuleList((CascadeFusion(2 * wide, middle, wide), CascadeFusion(wide, fine, wide)))
        self.head = nn.Conv2d(wide, len(label_space), 1)
        self.aux = (
            nn.ModuleList(nn.Conv2d(channels, len(label_space), 1) for channels in (2 * wide, wide)) if aux else None
        )
        initialise(self)
        if encoder_weights is not None:
            fill_resnet(self.backbone, backbone, encoder_weights)
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The ResNet."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        full = self.full(x)
        half, quarter = self.backbone(halved(x))
        pooled = self.narrow(_pooled(quarter))
        middle, coarse = self.fusion[0](pooled, half)
        fused, finer = self.fusion[1](middle, full)
        fused = resize(fused, cells(x.shape[-2:], 4))
        logits = self.head(fused)
        features = {"full": full, "half": half, "quarter": quarter, "fused": fused}
        extras = {}
        if self.aux is not None and self.training:
            extras = {"aux_quarter": self.aux[0](coarse), "aux_half": self.aux[1](finer)}
        return Outputs(resize(logits, images.shape[-2:]), features, extras, coarse=logits, embedding=fused)

    def weight_of(self, head: str) -> float:
        """See `Network.weight_of`."""
        return WEIGHTS[head]

    def losses(self, outputs: Outputs, labels: Tensor, pixel_loss: PixelLoss) -> Terms:
        """See `Network.losses`; for the auxiliary heads labels are resized by nearest neighbour."""
        terms = {"segmentation": pixel_loss(outputs.logits, labels)}
        for name in WEIGHTS:
            if name in outputs.extras:
                logits = outputs.extras[name]
                terms[name] = self.weight_of(name) * pixel_loss(logits, _nearest(labels, logits))
        return terms


def _pooled(x: Tensor) -> Tensor:
    """The sum of ``x`` (B, C, h, w) and its averages over `GRIDS`, resized to its size."""
    total = x
    for grid in GRIDS:
        level = F.adaptive_avg_pool2d(x, grid)
        total = total + F.interpolate(level, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return total


def _nearest(labels: Tensor, like: Tensor) -> Tensor:
    """``labels`` (B, H, W) at the size of ``like`` (B, K, h, w), by nearest neighbour at the centres of cells."""
    small = F.interpolate(labels.unsqueeze(1).float(), size=like.shape[-2:], mode="nearest-exact")
    return small.squeeze(1).to(labels.dtype)
