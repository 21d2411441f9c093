"""SwiftNet, single scale: a ResNet-18 and a light ladder decoder of sums, up to stride 4; 11.8 M parameters.

In the paper the ladder reads each stage's residual sum before its ReLU. In the authors' code that ReLU works in place,
so the ladder and the pooling read the map after it. Every unit after the encoder is batch norm, ReLU, convolution.
Context comes from pooling over grids that follow the image's aspect ratio.

Source: Orsic, Kreso, Bevandic and Segvic, "In defense of pre-trained ImageNet architectures for real-time semantic
segmentation of road-driving images", CVPR 2019, section 3 and figure 2.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.swiftnet import SwiftNetDecoder
from hardy.networks.parts.resnet import ResNet, fill_resnet
from hardy.types import Outputs

__all__ = ["SwiftNet"]


class SwiftNet(Network):
    """Features: ``stage1`` .. ``stage4`` (64, 128, 256, 512 channels at strides 4, 8, 16, 32; see ``skip``),
    ``pyramid`` (B, 128, H/32, W/32), ``fused`` (B, 128, H/4, W/4), the embedding. Coarse logits at stride 4.

    Args:
        label_space: the classes predicted.
        encoder_weights: None for random initialisation; a file of ResNet-18 weights with the names of torchvision or
            timm; ``"timm"`` or a timm tag.
        skip: the map of a stage that the ladder and the pooling read: its residual ``"sum"``, as in the paper, or the
            map after its ``"relu"``, as in the authors' release and its published weights.

    Raises:
        InputError: for weights that do not fit or cannot be downloaded.
    """

    multiple = 32

    def __init__(
        self, label_space: LabelSpace, *, encoder_weights: str | None = None, skip: Literal["sum", "relu"] = "sum"
    ) -> None:
        super().__init__(label_space)
        self.skip = skip
        self.backbone = ResNet("resnet18")
        self.decoder = SwiftNetDecoder(self.backbone.channels, self.backbone.strides, len(label_space))
        initialise(self)
        if encoder_weights is not None:
            fill_resnet(self.backbone, "resnet18", encoder_weights)
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The ResNet-18."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        maps: list[Tensor] = self.backbone(self.normalise(images))
        if self.skip == "relu":
            maps = [F.relu(x) for x in maps]
        features = {f"stage{number}": stage for number, stage in enumerate(maps, start=1)}
        features |= self.decoder.fuse(maps)
        fused = features["fused"]
        logits = self.decoder.head(fused)
        return Outputs(resize(logits, images.shape[-2:]), features, coarse=logits, embedding=fused)
