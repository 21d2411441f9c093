"""ShuffleNet V2 x0.5 to x2.0: each unit filters half of the channels, keeps the others and shuffles both halves.

The layers are torchvision's.

Source: Ma, Zhang, Zheng and Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture design", ECCV
2018, table 5.
"""

from typing import Any

from torch import Tensor, nn
from torchvision import models

from hardy.networks.encoders.base import Encoder

__all__ = ["ShuffleNetV2"]

VARIANTS = {
    "shufflenet_v2_x0_5": (24, 48, 96, 192),
    "shufflenet_v2_x1_0": (24, 116, 232, 464),
    "shufflenet_v2_x1_5": (24, 176, 352, 704),
    "shufflenet_v2_x2_0": (24, 244, 488, 976),
}
"""Name -> channels of the pooled map and of the three stages."""


class ShuffleNetV2(Encoder):
    """Maps at strides 4, 8, 16, 32. The first is that after the pooling. For x1.0 they have 24, 116, 232 and 464
    channels.

    Weights come from a file with torchvision's names. An image-level classifier reads the mean of one more 1x1
    convolution.

    Args:
        name: ``shufflenet_v2_x0_5``, ``shufflenet_v2_x1_0``, ``shufflenet_v2_x1_5`` or ``shufflenet_v2_x2_0``.
    """

    variants = tuple(VARIANTS)
    outside = ("fc.", "conv5.")

    def __init__(self, name: str) -> None:
        super().__init__(name, VARIANTS[name])
        model: Any = models.get_model(name, weights=None)
        self.conv1, self.maxpool = model.conv1, model.maxpool
        self.stage2, self.stage3, self.stage4 = model.stage2, model.stage3, model.stage4
        self.conv5: nn.Module = model.conv5
        self.width = model.fc.in_features

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above."""
        maps = [self.maxpool(self.conv1(images))]
        for stage in (self.stage2, self.stage3, self.stage4):
            maps.append(stage(maps[-1]))
        return maps

    def embed(self, coarsest: Tensor) -> Tensor:
        """See `Encoder.embed`."""
        return super().embed(self.conv5(coarsest))

    def trim(self) -> None:
        """See `Encoder.trim`; removes the last 1x1 convolution."""
        self.conv5 = nn.Identity()
