"""Weights for other classes: the last layer keeps the slices of classes with equal names, all other layers are kept.

The tensors with one slice per class are found by building the network for one more class, on the ``meta`` device.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.described import check_architecture
from hardy.stored import read_json

__all__ = [
    "architecture_beside",
    "class_axes",
    "class_count",
    "nameless",
    "names_beside",
    "warn_of_new_classes",
    "with_classes",
]

_log = logging.getLogger("hardy")

Build = Callable[[LabelSpace], Network]
"""Builds the same network for another label space; called on the ``meta`` device."""


def nameless(count: int) -> LabelSpace:
    """A label space of ``count`` classes whose names are unknown."""
    return LabelSpace("nameless", tuple(map(str, range(count))), ((0, 0, 0),) * count)


def class_axes(build: Build, count: int) -> dict[str, list[int]]:
    """Tensor name -> the axes whose size depends on the number of classes, for a network of ``count`` classes.

    They are found by comparison with a network of one more class, or one class less for 255, the largest number.
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
    """The number of classes that ``weights`` predict; None if it cannot be determined.

    Args:
        axes: from `class_axes` for a network of ``count`` classes.
        weights: weights of the same network for an unknown number of classes.
        built: the tensors of the network of ``count`` classes.
        count: see ``axes``.
    """
    for name, (axis, *_) in reversed(list(axes.items())):
        if name in weights and built[name].shape[axis] == count and weights[name].ndim > axis:
            return int(weights[name].shape[axis])
    return None


def names_beside(file: str | Path) -> tuple[str, ...] | None:
    """The classes of the run whose ``network.safetensors`` is ``file``; None for any other file."""
    try:
        return LabelSpace.from_json(_beside(file)["labels"]).classes
    except (OSError, ValueError, KeyError, TypeError):
        return None


def architecture_beside(file: str | Path) -> Mapping[str, Any]:
    """The architecture of the run whose ``network.safetensors`` is ``file``; empty for any other file."""
    try:
        check_architecture(found := _beside(file)["architecture"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(found)


def _beside(file: str | Path) -> Any:
    """The content of the description beside ``file``; empty for a file that is not part of a run.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    description = Path(file).with_name("network.json")
    return read_json(description) if Path(file).name == "network.safetensors" and description.is_file() else {}


def with_classes(
    network: Network,
    weights: Mapping[str, Tensor],
    axes: Mapping[str, Sequence[int]],
    names: Sequence[str | None],
    source: str,
) -> dict[str, Tensor]:
    """``weights`` of a network for the classes ``names``, changed to fit ``network`` and its own classes.

    Slices of classes with equal names are kept; all others are those of ``network``. An unknown class has the name
    None.

    Raises:
        InputError: if layers other than the last depend on the number of classes.
    """
    own, classes = network.state_dict(), network.label_space.classes
    found = dict(weights)
    for name, (axis, *more) in axes.items():
        if name not in weights or weights[name].ndim != own[name].ndim:
            continue  # `fill` reports what does not fit
        if more or (weights[name].shape[axis], own[name].shape[axis]) != (len(names), len(classes)):
            raise InputError(
                f"{source}: {name} of this {type(network).__name__} depends on the number of classes but is not a last "
                "layer, so the classes cannot change; leave network.classes as they were"
            )
        value = own[name].clone()
        if value.select(axis, 0).shape != weights[name].select(axis, 0).shape:
            continue
        for place, one in enumerate(classes):
            if one in names:
                value.select(axis, place).copy_(weights[name].select(axis, list(names).index(one)))
        found[name] = value
    return found


def warn_of_new_classes(
    source: str, names: Sequence[str | None], label_space: LabelSpace, layers: Sequence[str]
) -> None:
    """Log a warning that names the classes that are new in the last ``layers``; ``names`` are the old classes."""
    kept = [name for name in label_space.classes if name in names]
    new = [name for name in label_space.classes if name not in names]
    parts = [f"{len(kept)} of {len(label_space)} classes by their names"] if kept else []
    parts += [f"initialised at random: {_few(new)}"] if new else []
    unnamed = "; its classes have no names" if None in names else ""
    _log.warning(
        "%s: predicts %d classes, the network %d (%s): new last layer %s: %s%s",
        source,
        len(names),
        len(label_space),
        label_space.name,
        _few(layers),
        ", ".join(parts),
        unnamed,
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
