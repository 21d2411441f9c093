"""Other classes for weights that are there: all stays but the last layers, and these go by the names of the classes.

Which tensors hold a slice per class is read off the network built for one class more, on the ``meta`` device.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hardy.data.labels import LabelSpace
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.stored import read_json

__all__ = ["class_axes", "class_count", "nameless", "names_beside", "tell", "with_classes"]

_log = logging.getLogger("hardy")

Build = Callable[[LabelSpace], Network]
"""A network for a label space, all else the same; called on the ``meta`` device."""


def nameless(count: int) -> LabelSpace:
    """A label space of ``count`` classes of which no more is known."""
    return LabelSpace("nameless", tuple(map(str, range(count))), ((0, 0, 0),) * count)


def class_axes(build: Build, count: int) -> dict[str, list[int]]:
    """By name, the axes of the tensors that change with the number of classes, for a network of ``count``.

    Where there are 255 already, the most there can be, one class less is compared.
    """
    other = count - 1 if count == 255 else count + 1
    with torch.device("meta"):
        one, more = (build(nameless(each)).state_dict() for each in (count, other))
    return {
        name: axes
        for name, value in one.items()
        if (axes := [axis for axis in range(value.ndim) if value.shape[axis] != more[name].shape[axis]])
    }


def class_count(
    axes: Mapping[str, Sequence[int]], weights: Mapping[str, Tensor], built: Mapping[str, Tensor], count: int
) -> int | None:
    """How many classes ``weights`` predict, None where they do not tell.

    Args:
        axes: as `class_axes` has them for a network of ``count`` classes.
        weights: of a network of the same kind.
        built: the tensors of the network of ``count`` classes.
        count: see ``axes``.
    """
    for name, (axis, *_) in reversed(list(axes.items())):
        if name in weights and built[name].shape[axis] == count and weights[name].ndim > axis:
            return int(weights[name].shape[axis])
    return None


def names_beside(file: str | Path) -> tuple[str, ...] | None:
    """The classes of the run whose ``network.safetensors`` is ``file``; None for any other file."""
    description = Path(file).with_name("network.json")
    if Path(file).name != "network.safetensors" or not description.is_file():
        return None
    try:
        return LabelSpace.from_json(read_json(description)["labels"]).classes
    except (OSError, ValueError, KeyError, TypeError):
        return None


def with_classes(
    network: Network,
    weights: Mapping[str, Tensor],
    axes: Mapping[str, Sequence[int]],
    names: Sequence[str | None],
    source: str,
) -> dict[str, Tensor]:
    """``weights`` of a network for the classes ``names`` as weights of ``network``, which has classes of its own.

    Slices of classes with equal names are kept; those of the others are as ``network`` has them. A class whose name is
    not known is None.

    Raises:
        InputError: when more than last layers depends on the number of classes.
    """
    own, classes = network.state_dict(), network.labels.classes
    found = dict(weights)
    for name, (axis, *more) in axes.items():
        if name not in weights or weights[name].ndim != own[name].ndim:
            continue  # whoever fills the network in says what does not fit
        if more or (weights[name].shape[axis], own[name].shape[axis]) != (len(names), len(classes)):
            raise InputError(
                f"{source}: {name} of this {type(network).__name__} depends on the number of classes, and is no last "
                "layer: other classes need a network of their own; leave network.classes as they were"
            )
        value = own[name].clone()
        if value.select(axis, 0).shape != weights[name].select(axis, 0).shape:
            continue
        for place, one in enumerate(classes):
            if one in names:
                value.select(axis, place).copy_(weights[name].select(axis, list(names).index(one)))
        found[name] = value
    return found


def tell(source: str, names: Sequence[str | None], labels: LabelSpace, layers: Sequence[str]) -> None:
    """Say in the log what became of the last ``layers``; ``names`` are the classes there were."""
    kept = [name for name in labels.classes if name in names]
    drawn = [name for name in labels.classes if name not in names]
    parts = [f"{len(kept)} of {len(labels)} classes by their names"] if kept else []
    parts += [f"drawn at random: {_few(drawn)}"] if drawn else []
    unnamed = "; its classes have no names" if None in names else ""
    _log.warning(
        "%s: predicts %d classes, the network %d (%s): new last layer %s: %s%s",
        source,
        len(names),
        len(labels),
        labels.name,
        _few(layers),
        ", ".join(parts),
        unnamed,
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
