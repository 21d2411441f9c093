"""The interface of an encoder, images to feature maps, and Hardy's own encoders by name.

A file of this package holds one family. timm encoders that run at any image size need no file here.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import timm
from torch import Tensor, nn

from hardy.errors import InputError, nearest
from hardy.networks.building.weights import fill, is_file, read_weights
from hardy.networks.parts.pyramid import load_encoder
from hardy.networks.shipped.base import shipped
from hardy.registry import ENCODERS

__all__ = ["Encoder", "encoder_names", "family_of", "load"]


class Encoder(nn.Module, ABC):
    """Normalised images (B, 3, H, W) -> maps (B, C_i, h_i, w_i), finest first; H and W at least 32, of any size.

    The constructor takes ``name``, one of `variants`, before the ``*`` and its options after it. Parameters are named
    as in published checkpoints.

    Attributes:
        variants: the names of its sizes, which networks use to select it.
        in_timm: whether timm has these sizes, and so weights for them.
        outside: prefixes of those names in a checkpoint that do not belong to the encoder.
        name: one of `variants`.
        channels: channels of each map as built.
        strides: stride of each map.
        multiple: the sides of the images must be multiples of it: 1 for any size.
        width: channels of the result of `embed`.
    """

    variants: ClassVar[Collection[str]]
    in_timm: ClassVar[bool] = False
    outside: ClassVar[tuple[str, ...]] = ()
    multiple: int = 1

    def __init__(self, name: str, channels: Sequence[int], strides: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        self.name, self.channels, self.strides = name, list(channels), list(strides)
        self.width = self.channels[-1]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above."""

    def embed(self, coarsest: Tensor) -> Tensor:
        """The input of an image-level linear classifier, (B, `width`): the mean of the coarsest map."""
        return coarsest.mean((2, 3))

    def trim(self) -> None:
        """Remove the layers that only `embed` uses, in place; by default there are none."""

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint under the names of this encoder."""
        return dict(weights)

    def load_weights(self, weights: str) -> None:
        """Load published weights into the encoder, in place.

        Args:
            weights: a file, with or without the names `outside` the encoder; for a size that timm has, also ``"timm"``
                or a timm tag.

        Raises:
            InputError: for weights that do not exist, cannot be downloaded or do not fit.
        """
        if short := shipped(weights):
            short.check_encoder(self.name, self.state_dict())
        if is_file(weights):
            found = read_weights(weights)
        elif self.in_timm:
            found = load_encoder(self.name, weights, lambda model: model.reset_classifier(0), img_size=224).state_dict()
        else:
            raise InputError(f"weights {weights!r}: timm has none of {self.name}; give a weights file or None")
        outside = self.outside
        fill(self, self.renamed(found), weights, may_be_left=lambda names: [n for n in names if n.startswith(outside)])


def encoder_names() -> list[str]:
    """The names of all sizes of all families of this package."""
    return [name for family in _families() for name in family.variants]


def family_of(name: str) -> type[Encoder] | None:
    """The family of this package that has the size ``name``; None for a size that only timm has.

    Raises:
        InputError: for a name that neither has; the message names the nearest.
    """
    size = name.partition(".")[0]
    found = next((family for family in _families() if size in family.variants), None)
    if (found is None or size != name) and not timm.is_model(size):
        known = [*timm.list_models(), *encoder_names()]
        raise InputError(f"there is no encoder {name!r}, in timm or in Hardy{nearest(size, known)}")
    return found


def load(name: str, weights: str | None, *, embedding: bool = False, **options: Any) -> Encoder:
    """The encoder ``name`` of this package.

    Args:
        name: a size of a family of this package; a timm tag may follow, which ``weights="timm"`` then uses.
        weights: None for random initialisation, or see `Encoder.load_weights`.
        embedding: whether `Encoder.embed` will be called.
        options: options of the family's constructor.

    Raises:
        InputError: for weights that do not fit or do not exist.
    """
    family = family_of(name)
    assert family is not None, f"{name} is no encoder of this package"
    size, _, tag = name.partition(".")
    encoder = family(size, **options)
    if not embedding:
        encoder.trim()
    if weights is not None:
        encoder.load_weights(tag if tag and weights == "timm" else weights)
    return encoder


def _families() -> list[type[Encoder]]:
    return [ENCODERS.get(family) for family in ENCODERS]
