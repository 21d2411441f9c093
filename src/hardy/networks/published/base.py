"""The interface of every publication: whose weights a file holds, and how its names and values become ours."""

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
    """The tensors of a file under our names, and those without a place in our network: published name -> why."""

    weights: dict[str, Tensor]
    dropped: dict[str, str]


class Publication(ABC):
    """Weights that somebody published for one of Hardy's networks, as state dicts under their names.

    A subclass names its source in the attributes, reads the network's options off names and shapes, and says where each
    layer goes. Values that are laid out in another way are changed by `converted`. Nothing of a file is left over in
    silence: a tensor that neither `layers` nor `dropped` knows is an error.

    Attributes:
        network: the name of our network.
        repository: where the names come from, ``owner/name``.
        checked: what the map was checked on: the published ``"files"``, drawn weights in the release's ``"code"``, or
            their ``"names"`` and shapes only.
        prefix: a pattern that is taken away from the front of names that have it, after ``model.`` and ``module.``,
            which the training loops of any publication put there.
        signs: patterns of names; a file that has one of each is of this publication.
        layers: patterns of published layers (names less their last part) -> our layers, with groups as for `re.sub`;
            the first that fits counts.
        dropped: patterns of whole names that have no place in our network -> why.
        channels: the order of an image's channels in the release; `converted` makes RGB of BGR.
        void: True when the last of the file's classes is what training called void, and may be cut off.
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
        """``weights`` without `prefix` and those of training loops.

        Raises:
            InputError: when two names become one.
        """
        plain = {self._plain(name): value for name, value in weights.items()}
        if len(plain) < len(weights):
            name, _ = Counter(map(self._plain, weights)).most_common(1)[0]
            raise InputError(f"some names occur twice, with and without the prefix, {name} for one")
        return plain

    def lacks(self, names: Collection[str]) -> str | None:
        """The first of `signs`, as a name, that a file with ``names`` does not have; None when it has all."""
        plain = [self._plain(name) for name in names]
        missing = (sign for sign in self.signs if not any(_fits(sign, name) for name in plain))
        return next((sign.replace("\\", "") for sign in missing), None)

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a file with ``names`` is of this publication."""
        return self.lacks(names) is None

    def likeness(self, names: Collection[str]) -> float:
        """The share of ``names`` that have a place in this publication."""
        plain = [self._plain(name) for name in names]
        return sum(self._layer(name) is not None for name in plain) / max(1, len(plain))

    def _plain(self, name: str) -> str:
        return re.sub(f"^{_LOOPS}(?:{self.prefix})?", "", name)

    def _layer(self, name: str) -> str | None:
        """Our layer of the tensor ``name``, or None."""
        layer = name.rpartition(".")[0]
        return next((re.sub(f"^{old}$", new, layer) for old, new in self.layers.items() if _fits(old, layer)), None)

    @abstractmethod
    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """How many classes the file predicts, the void one included; ``weights`` as from `published`.

        Raises:
            KeyError: when the classifier is not in the file.
        """

    @abstractmethod
    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """The options of our network that the file needs; ``weights`` as from `published`.

        Raises:
            InputError: for a size of the network that Hardy does not have.
            KeyError: when a layer that tells the size is not in the file.
        """

    def colours(self, weights: Mapping[str, Tensor]) -> Colours:
        """The normalisation of RGB images; ImageNet's unless told otherwise."""
        return Colours(IMAGENET_MEAN, IMAGENET_STD)

    def renamed(self, weights: Mapping[str, Tensor]) -> Renamed:
        """``weights``, as from `published`, under our names.

        Raises:
            InputError: naming what has no place, or two tensors that would take the same.
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
            raise InputError(f"{len(left)} left over that {self.network} has no place for ({shown})")
        return found

    def converted(self, weights: dict[str, Tensor], class_count: int) -> dict[str, Tensor]:
        """``weights``, under our names, with the values that our layers take.

        Args:
            weights: of `renamed`.
            class_count: K of the network they are for; with `void` it may be one less than the file's.
        """
        return weights


def _fits(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern, name) is not None


def in_rgb(weights: Tensor, first: int = 0, *, axis: int = 1) -> Tensor:
    """``weights`` for RGB where they were for BGR: three channels from ``first`` on along ``axis`` in reverse order."""
    order = list(range(weights.shape[axis]))
    order[first : first + 3] = reversed(order[first : first + 3])
    return weights[(slice(None),) * axis + (order,)]
