"""ShuffleNet V1 x0.5 to x2.0 with 1 to 8 groups: grouped 1x1 convolutions and channel shuffles.

With more groups the stages are wider at about the same cost. The stem has 24 channels at x1.0 and x1.5 and 48 at x2.0.
At x0.5 it has 12 with 3 groups, and 16 with 8 groups, where it must be a multiple of 8.

Source: Zhang, Zhou, Lin and Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices",
CVPR 2018, table 1.
"""

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.shufflenet_v1 import ShuffleNetV1 as Unit
from hardy.networks.building.weights import initialise
from hardy.networks.encoders.base import Encoder

__all__ = ["ShuffleNetV1"]

DEPTHS = (4, 8, 4)
WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Groups -> channels of the first stage at x1.0; each further stage doubles them."""


def _stem(scale: str, groups: int) -> int:
    return {"x0_5": 16 if groups == 8 else 12, "x2_0": 48}.get(scale, 24)


VARIANTS = {
    f"shufflenet_v1_{scale}_g{groups}": (groups, _stem(scale, groups), int(WIDTHS[groups] * factor))
    for scale, factor in {"x0_5": 0.5, "x1_0": 1.0, "x1_5": 1.5, "x2_0": 2.0}.items()
    for groups in (WIDTHS if factor == 1 else (3, 8))
}
"""Name -> groups, channels of the stem, channels of the first stage."""


class ShuffleNetV1(Encoder):
    """Maps at strides 4, 8, 16, 32. The first is that after the pooling. For x1.0 with 3 groups they have 24, 240, 480
    and 960 channels.

    Args:
        name: ``shufflenet_v1_x1_0_g1`` .. ``g8`` (1, 2, 3, 4 or 8 groups), or ``x0_5``, ``x1_5`` or ``x2_0`` with
            ``g3`` or ``g8``.
    """

    variants = tuple(VARIANTS)
    outside = ("fc.",)

    def __init__(self, name: str) -> None:
        groups, stem, width = VARIANTS[name]
        super().__init__(name, (stem, width, 2 * width, 4 * width))
        self.stem = nn.Sequential(ConvNormAct(3, stem, stride=2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList(
            nn.Sequential(
                Unit(before, after, groups=groups, stride=2, first_grouped=before != stem),
                *(Unit(after, after, groups=groups) for _ in range(depth - 1)),
            )
            for before, after, depth in zip(self.channels, self.channels[1:], DEPTHS, strict=False)
        )
        initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps
