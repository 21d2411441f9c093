"""The STDC encoder (short-term dense concatenation), as a list of feature maps, with weights from a file.

Source: Fan, Lai, Huang, Wei, Chai, Luo and Wei, "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021,
section 3.2 and table 2.
"""

from collections.abc import Collection

from torch import Tensor, nn

from hardy.blocks.short_term_dense_concatenate import ShortTermDenseConcatenate, conv_norm_act
from hardy.errors import InputError
from hardy.networks._weights import fill, initialise, is_file, read_weights

__all__ = ["VARIANTS", "STDCNet", "load_stdc"]

VARIANTS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
"""Name -> number of modules at strides 8, 16 and 32."""

HEADS = ("conv_last.", "fc.", "bn.", "linear.", "x2.", "x4.", "x8.", "x16.", "x32.")
"""What the authors' checkpoints hold besides ``features``: the classifier, and the stages a second time."""


class STDCNet(nn.Module):
    """Normalised images (B, 3, H, W) -> maps of 64, 256, 512 and 1024 channels at strides 4, 8, 16 and 32.

    Attributes:
        channels: width of each map as built.
        strides: of each map.
        multiple: 1: sides of the images need not be multiples of anything.

    Args:
        name: one of `VARIANTS`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.channels, self.strides, self.multiple = [64, 256, 512, 1024], [4, 8, 16, 32], 1
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


def load_stdc(name: str, weights: str | None) -> STDCNet:
    """The encoder ``name`` with ``weights``.

    Args:
        name: one of `VARIANTS`.
        weights: None for a random draw; a file under the names of the authors' ImageNet checkpoints, with or without
            their classifier, which is left out.

    Raises:
        InputError: for anything but a file, or one that does not fit.
    """
    encoder = STDCNet(name)
    if weights is not None:
        if not is_file(weights):
            raise InputError(f"weights {weights!r}: timm has none of {name}; give a weights file or None")
        fill(encoder, read_weights(weights), weights, may_be_left=_heads)
    return encoder


def _heads(names: Collection[str]) -> list[str]:
    return [name for name in names if name.startswith(HEADS)]
