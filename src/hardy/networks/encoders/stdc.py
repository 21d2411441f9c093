"""The encoders of STDC: modules of several convolutions, each with fewer filters, whose outputs are concatenated.

Source: Fan, Lai, Huang, Wei, Chai, Luo and Wei, "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021,
section 3.2 and table 2.
"""

from torch import Tensor, nn

from hardy.blocks.short_term_dense_concatenate import ShortTermDenseConcatenate, conv_norm_act
from hardy.networks.building.weights import initialise
from hardy.networks.encoders.base import Encoder

__all__ = ["STDCNet"]

VARIANTS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
"""Name -> number of modules at strides 8, 16 and 32."""


class STDCNet(Encoder):
    """Maps of 64, 256, 512 and 1024 channels at strides 4, 8, 16 and 32; weights come from the authors' file.

    Args:
        name: ``stdc1`` or ``stdc2``.
    """

    variants = tuple(VARIANTS)
    beside = ("conv_last.", "fc.", "bn.", "linear.", "x2.", "x4.", "x8.", "x16.", "x32.")
    """The authors' classifier, and copies of the stages under other names."""

    def __init__(self, name: str) -> None:
        super().__init__(name, (64, 256, 512, 1024))
        layers: list[nn.Module] = [conv_norm_act(3, 32, stride=2), conv_norm_act(32, 64, stride=2)]
        self.ends = [len(layers)]
        for before, width, repeats in zip(self.channels, self.channels[1:], VARIANTS[name], strict=False):
            layers.append(ShortTermDenseConcatenate(before, width, stride=2))
            layers.extend(ShortTermDenseConcatenate(width, width) for _ in range(repeats - 1))
            self.ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above."""
        x, maps = images, []
        for place, layer in enumerate(self.features, start=1):
            x = layer(x)
            if place in self.ends:
                maps.append(x)
        return maps
