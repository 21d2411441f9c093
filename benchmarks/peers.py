"""Networks of `segmentation_models_pytorch` beside which Hardy's are measured, without pre-trained weights.

Their sides must be multiples of 32 or 16: images are resized, as for Hardy's networks.
"""

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.types import Outputs

__all__ = ["DeepLabV3Plus", "LinkNet", "SegFormer"]


class _Peer(Network):
    multiple = 32

    def __init__(self, label_space: LabelSpace, module: nn.Module) -> None:
        super().__init__(label_space)
        self.module = module

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        logits = self.module(self.normalise(images))
        return Outputs(resize(logits, images.shape[-2:]), coarse=logits)


class LinkNet(_Peer):
    """LinkNet on ResNet-18."""

    def __init__(self, label_space: LabelSpace) -> None:
        super().__init__(label_space, smp.Linknet("resnet18", encoder_weights=None, classes=len(label_space)))


class SegFormer(_Peer):
    """SegFormer-B0."""

    def __init__(self, label_space: LabelSpace) -> None:
        super().__init__(label_space, smp.Segformer("mit_b0", encoder_weights=None, classes=len(label_space)))


class DeepLabV3Plus(_Peer):
    """DeepLabV3+ on ResNet-18 at stride 16."""

    def __init__(self, label_space: LabelSpace) -> None:
        super().__init__(label_space, smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=len(label_space)))
