"""LinkNet: a ResNet-18 and a decoder that adds the encoder's maps, up to stride 1; 11.5 M parameters.

The decoder also adds the map before the encoder's first stage, so there are four steps up to stride 4.

Source: Chaurasia and Culurciello, "LinkNet: exploiting encoder representations for efficient semantic segmentation",
VCIP 2017, section III and figures 1 to 3.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.transposed_to import fitted
from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.networks.decoders.linknet import LinkNetDecoder
from hardy.networks.parts.resnet import ResNet, fill_resnet
from hardy.types import Outputs

__all__ = ["LinkNet"]


class LinkNet(Network):
    """Features: ``stem`` (B, 64, H/4, W/4), ``stage1`` .. ``stage4`` (64, 128, 256, 512 channels at strides 4, 8, 16,
    32; after the ReLU). Coarse logits at stride 1; the embedding is the decoder's last sum, at stride 4.

    Args:
        label_space: the classes predicted.
        encoder_weights: None for random initialisation; a file of ResNet-18 weights with the names of torchvision or
            timm; ``"timm"`` or a timm tag.

    Raises:
        InputError: for weights that do not fit or cannot be downloaded.
    """

    multiple = 32

    def __init__(self, label_space: LabelSpace, *, encoder_weights: str | None = None) -> None:
        super().__init__(label_space)
        self.backbone = ResNet("resnet18")
        channels, strides = self.backbone.channels, self.backbone.strides
        self.decoder = LinkNetDecoder([channels[0], *channels], [strides[0], *strides], len(label_space))
        initialise(self.backbone)
        if encoder_weights is not None:
            fill_resnet(self.backbone, "resnet18", encoder_weights)
            self.pretrained = True

    def encoder(self) -> Sequence[nn.Module]:
        """The ResNet-18."""
        return (self.backbone,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        x = self.normalise(images)
        stem = self.backbone.stem(x)
        maps = [F.relu(total) for total in self.backbone.stages(stem)]
        decoded = self.decoder.decode([stem, *maps])
        logits = fitted(decoded.logits, x.shape[-2:])
        features = {f"stage{number}": x for number, x in enumerate(maps, start=1)}
        full_size = resize(logits, images.shape[-2:])
        return Outputs(full_size, {"stem": stem, **features}, coarse=logits, embedding=decoded.embedding)
