"""The interface of every publication: recognises its weights files and converts their names and values."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from hardy.errors import InputError
from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["Colours", "Publication", "Renamed", "in_rgb"]


_LOOPS = r"(?:(?:module|model)\.)*"


class Colours(NamedTuple):
    """The normalisation a network was trained with: ``(images - mean) / std`` of RGB values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Renamed(NamedTuple):
    """The tensors of a file under Hardy's names, and the unused ones: published name -> reason."""

    weights: dict[str, Tensor]
    dropped: dict[str, str]


class Publication(ABC):
    """Weights that others published for one of Hardy's networks, as state dicts with their own names.

    A subclass names its source in the attributes, derives the network's options from names and shapes, and maps layer
    names. `converted` changes values that have another layout. A tensor that matches neither `layers` nor `dropped` is
    an error.

    Attributes:
        network: the name of Hardy's network.
        repository: the repository of the release, ``owner/name``.
        checked: what the name map was checked on: the published ``"files"``, random weights in the release's
            ``"code"``, or ``"names"`` and shapes only.
        prefix: a pattern that is removed from the start of names, after ``model.`` and ``module.``, which training
            loops add in any publication.
        signs: patterns of names; a file in which each matches a name is of this publication.
        layers: patterns of published layers (names without their last part) -> Hardy's layers, with groups as for
            `re.sub`; the first match is used.
        dropped: patterns of complete names that Hardy's network does not use -> reason.
        channels: the channel order of images in the release; `converted` turns BGR into RGB.
        void: True if the last class of the file is void, which may be removed.
    """

    network: ClassVar[str]
    repository: ClassVar[str]
    checked: ClassVar[str] = "names"
    prefix: ClassVar[str] = ""
    signs: ClassVar[tuple[str, ...]]
    layers: ClassVar[Mapping[str, str]]
    dropped: ClassVar[Mapping[str, str]] = {}
    channels: ClassVar[Literal["RGB", "BGR"]] = "RGB"
    void: ClassVar[bool] = False

    def published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` without `prefix` and the prefixes of training loops.

        Raises:
            InputError: if two names become equal.
        """
        plain = {self._plain(name): value for name, value in weights.items()}
        if len(plain) < len(weights):
            name, _ = Counter(map(self._plain, weights)).most_common(1)[0]
            raise InputError(f"some names occur twice, with and without the prefix, such as {name}")
        return plain

    def lacks(self, names: Collection[str]) -> str | None:
        """The first of `signs`, as a name, that a file with ``names`` does not match; None if it matches all."""
        plain = [self._plain(name) for name in names]
        missing = (sign for sign in self.signs if not any(_fits(sign, name) for name in plain))
        return next((sign.replace("\\", "") for sign in missing), None)

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a file with ``names`` is of this publication."""
        return self.lacks(names) is None

    def likeness(self, names: Collection[str]) -> float:
        """The share of ``names`` that match `layers`."""
        plain = [self._plain(name) for name in names]
        return sum(self._layer(name) is not None for name in plain) / max(1, len(plain))

    def _plain(self, name: str) -> str:
        return re.sub(f"^{_LOOPS}(?:{self.prefix})?", "", name)

    def _layer(self, name: str) -> str | None:
        """Hardy's layer of the tensor ``name``, or None."""
        layer = name.rpartition(".")[0]
        return next((re.sub(f"^{old}$", new, layer) for old, new in self.layers.items() if _fits(old, layer)), None)

    @abstractmethod
    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """The number of classes of the file, including void; ``weights`` as from `published`.

        Raises:
            KeyError: if the classifier is not in the file.
        """

    @abstractmethod
    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """The options of Hardy's network that the file needs; ``weights`` as from `published`.

        Raises:
            InputError: for a size of the network that Hardy does not have.
            KeyError: if a layer that determines the size is not in the file.
        """

    def colours(self, weights: Mapping[str, Tensor]) -> Colours:
        """The normalisation of RGB images; by default ImageNet's."""
        return Colours(IMAGENET_MEAN, IMAGENET_STD)

    def renamed(self, weights: Mapping[str, Tensor]) -> Renamed:
        """``weights``, as from `published`, under Hardy's names.

        Raises:
            InputError: naming tensors that match no pattern, or two tensors that would get the same name.
        """
        found, left = Renamed({}, {}), []
        for name, value in weights.items():
            ours, leaf = self._layer(name), name.rpartition(".")[2]
            why = next((why for pattern, why in self.dropped.items() if _fits(pattern, name)), None)
            if why is not None:
                found.dropped[name] = why
            elif ours is None:
                left.append(name)
            elif f"{ours}.{leaf}" in found.weights:
                raise InputError(f"two tensors would become {ours}.{leaf}, one of them {name}")
            else:
                found.weights[f"{ours}.{leaf}"] = value
        if left:
            shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
            raise InputError(f"{len(left)} left over that {self.network} does not have ({shown})")
        return found

    def converted(self, weights: dict[str, Tensor], class_count: int) -> dict[str, Tensor]:
        """``weights``, under Hardy's names, converted to the layout of Hardy's layers.

        Args:
            weights: as from `renamed`.
            class_count: K of the network; with `void` it may be one less than the file's.
        """
        return weights


def _fits(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern, name) is not None


def in_rgb(weights: Tensor, first: int = 0, *, axis: int = 1) -> Tensor:
    """``weights`` for BGR changed to RGB: the three channels from ``first`` on along ``axis`` in reverse order."""
    order = list(range(weights.shape[axis]))
    order[first : first + 3] = reversed(order[first : first + 3])
    return weights[(slice(None),) * axis + (order,)]
