"""SwiftNet, single scale: a ResNet-18 and a light ladder of sums back to stride 4; 11.8 M parameters.

The ladder takes each stage's residual sum before its ReLU; every unit after the encoder is batch norm, ReLU,
convolution. Context comes from pooling over grids that follow the image's aspect ratio.

Source: Orsic, Kreso, Bevandic and Segvic, "In defense of pre-trained ImageNet architectures for real-time semantic
segmentation of road-driving images", CVPR 2019, section 3 and figure 2.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hardy.blocks.aspect_pooling import AspectPooling
from hardy.blocks.ladder_step import LadderStep
from hardy.blocks.norm_act_conv import NormActConv
from hardy.data.labels import LabelSpace
from hardy.networks._resnet import ResNet, fill_resnet
from hardy.networks._weights import initialise
from hardy.networks.base import Network, resize
from hardy.types import Outputs

__all__ = ["SwiftNet"]


class SwiftNet(Network):
    """Features: ``stage1`` .. ``stage4`` (64, 128, 256, 512 channels at strides 4, 8, 16, 32; before the ReLU),
    ``pyramid`` (B, 128, H/32, W/32), ``fused`` (B, 128, H/4, W/4), ``logits`` at stride 4.

    Args:
        labels: the classes predicted.
        encoder_weights: None for a random draw; a file of ResNet-18 weights, under the names of torchvision or timm;
            ``"timm"`` or a tag of timm's.
    """

    def __init__(self, labels: LabelSpace, *, encoder_weights: str | None = None) -> None:
        super().__init__(labels)
        self.backbone = ResNet("resnet18")
        self.pyramid = AspectPooling(512, 128)
        self.ladder = nn.ModuleList(LadderStep(skip, 128) for skip in (256, 128, 64))
        self.head = NormActConv(128, len(labels), bias=True)
        initialise(self)
        if encoder_weights is not None:
            fill_resnet(self.backbone, "resnet18", encoder_weights)
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The ResNet-18, if it started from pre-trained weights."""
        return (self.backbone,) if self.pretrained else ()

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps: list[Tensor] = self.backbone(self.normalise(images))
        features = {f"stage{number}": stage for number, stage in enumerate(maps, start=1)}
        x = features["pyramid"] = self.pyramid(maps[-1])
        for step, skip in zip(self.ladder, reversed(maps[:-1]), strict=True):
            x = step(x, skip)
        features["fused"] = x
        features["logits"] = self.head(x)
        return Outputs(resize(features["logits"], images.shape[-2:]), features)
