"""`create`: a network by name; `rebuild`: the same network from the description that `create` stored in it."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hardy.blocks.pooled_norm import spare_single_values
from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network
from hardy.networks.building.classes import (
    architecture_beside,
    class_axes,
    class_count,
    nameless,
    names_beside,
    warn_of_new_classes,
    with_classes,
)
from hardy.networks.building.described import check_architecture, check_wrapped, in_proportion
from hardy.networks.building.weights import fill, is_file, noted, read_weights
from hardy.networks.building.wrapped import Wrapped
from hardy.networks.shipped.base import shipped
from hardy.ops.bounded import bounded
from hardy.registry import KINDS, NETWORKS

__all__ = ["create", "rebuild", "unwarned"]

_log = logging.getLogger("hardy")
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def create(
    name: str, classes: str | Path | LabelSpace, *, weights: str | Path | None = None, **options: Any
) -> Network:
    """The network ``name`` for ``classes``, in training mode.

    Args:
        name: a network of ``hardy list network``, or ``"module:Class"``.
        classes: a label space, its name, or the path of a ``classes.yaml``.
        weights: None for random initialisation; a file with the weights of the complete network; any other value is
            the network's option ``encoder_weights`` (``"timm"`` or a timm tag). A file for other classes fills all
            layers except the last. If it is a run's ``network.safetensors``, the last layer keeps the classes with
            equal names; all other classes are initialised at random. A warning names them.
        options: the keyword options of the network's constructor.

    Raises:
        InputError: for an unknown network, option or label space, or weights that do not fit.
    """
    label_space = find_label_space(classes)
    complete = weights is not None and is_file(weights)
    if weights is not None and not complete:
        options = {**options, "encoder_weights": _encoder_weights(name, options, str(weights))}
    completed = _completed(name, options)
    if complete and completed.get("encoder_weights") is not None:
        raise InputError(
            f"weights={str(weights)!r} is for the complete network: encoder_weights={completed['encoder_weights']!r} "
            "would have no effect; give one of them"
        )
    with noted() as notes:
        network = _built(name, label_space, completed)
    _set_normalisation_and_origin(network, notes)
    _say(notes, completed)
    if short := shipped(completed.get("encoder_weights")):
        _set_normalisation_and_origin(network, {"mean": short.mean, "std": short.std, "pretrained": short.described()})
    if complete:
        network = _filled(network, name, completed, read_weights(str(weights)), str(weights))
        _set_normalisation_and_origin(network, architecture_beside(str(weights)))
    elif completed.get("encoder_weights", "") is None and not _quiet.get():
        _log.warning(
            "%s starts from RANDOM WEIGHTS, its encoder included: expect longer training and lower scores; "
            "give encoder_weights a file, or 'timm' where timm has weights for it",
            name,
        )
    return network


def rebuild(
    architecture: Any, label_space: LabelSpace, *, module: nn.Module | None = None, size: int = 2**40
) -> Network:
    """The network that ``architecture`` describes; the caller fills in its weights, none are read or downloaded.

    The description comes from a file, so all of it is checked; see `hardy.networks.building.described`.

    Args:
        architecture: the attribute `Network.architecture` of a network from `create` or `hardy.wrap`.
        label_space: its label space.
        module: the module of a wrapped network saved without a factory.
        size: the bytes of the weights file; it limits the memory that the network may take.

    Raises:
        InputError: for a wrapped network with neither module nor factory, an unknown method or option, or a description
            that is invalid or from which no network can be built.
    """
    check_architecture(architecture)
    try:
        with in_proportion(size):
            network = _rebuilt(architecture, label_space, module)
    except InputError:
        raise
    except Exception as error:  # invalid values of a valid type can fail anywhere in torch or timm
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"no {architecture['name']!r} can be built from these options ({reason})") from error
    _set_normalisation_and_origin(network, architecture)
    return network


def _set_normalisation_and_origin(network: Network, architecture: Mapping[str, Any]) -> None:
    """Set the normalisation and the origin of encoder weights that ``architecture`` names, in place."""
    if "mean" in architecture:
        network.renormalise(architecture["mean"], architecture["std"])
    if "pretrained" in architecture:
        network.architecture = {**network.architecture, "pretrained": dict(architecture["pretrained"])}


def _say(notes: Mapping[str, Any], completed: Mapping[str, Any]) -> None:
    """Log the origin of the pre-trained weights that were read, if it is known; a short name logs its own."""
    known = notes.get("pretrained", {})
    if "licence" in known and not shipped(completed.get("encoder_weights")):
        shown = (known["name"], known["sha256"], known["licence"], known["origin"])
        _log.warning("encoder_weights %s: sha256 %s; licence %s, %s", *shown)


def _built(name: str, label_space: LabelSpace, completed: Mapping[str, Any]) -> Network:
    """The network ``name`` with these options and random weights."""
    with bounded(name):
        network: Network = NETWORKS.build(name, {"label_space": label_space}, **completed)
    spare_single_values(network)
    network.architecture = {"name": name, "options": json.loads(json.dumps({**completed, **network.written}))}
    return network


def _filled(
    network: Network, name: str, completed: Mapping[str, Any], found: Mapping[str, Tensor], file: str
) -> Network:
    """``network`` with the weights ``found`` in ``file``; built again if they are for other classes."""
    own, label_space, names = network.state_dict(), network.label_space, names_beside(file)
    if names in (None, label_space.classes) and all(found[key].shape == own[key].shape for key in own if key in found):
        fill(network, found, file)
        return network

    def bare(classes: LabelSpace) -> Network:
        built: Network = NETWORKS.build(name, {"label_space": classes}, **{**completed, **written})
        return built

    written: Mapping[str, Any] = {}
    axes = class_axes(bare, len(label_space))
    count = class_count(axes, found, own, len(label_space))
    if count is None or (count == len(label_space) and names in (None, label_space.classes)):
        fill(network, found, file)  # it reports what does not fit
        return network
    with torch.device("meta"):
        written = bare(nameless(count)).written
    network, axes = _built(name, label_space, {**completed, **written}), class_axes(bare, len(label_space))
    known = names if names is not None and len(names) == count else (None,) * count
    fill(network, with_classes(network, found, axes, known, file), file)
    warn_of_new_classes(file, known, label_space, sorted(axes))
    return network


def _rebuilt(architecture: Mapping[str, Any], label_space: LabelSpace, module: nn.Module | None) -> Network:
    name, options = architecture["name"], dict(architecture["options"])
    if name == Wrapped.NAME:
        check_wrapped(options)
        return Wrapped(label_space, module, **options)
    fetched = options.get("encoder_weights")
    with unwarned():
        network = create(name, label_space, **({**options, "encoder_weights": None} if fetched else options))
    network.pretrained = bool(fetched)
    network.architecture = {"name": name, "options": options}
    return network


@contextmanager
def unwarned() -> Iterator[None]:
    """Inside the block `create` does not warn of random weights, because the caller fills the network afterwards."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def _encoder_weights(name: str, options: Mapping[str, Any], weights: str) -> str:
    if expanded(weights).is_dir():
        raise InputError(f"weights={weights!r} is a folder: load a run with hardy.load, or give the weights file in it")
    known = [option.name for option in NETWORKS.describe(name).options]
    if "encoder_weights" not in known:
        raise InputError(f"weights={weights!r}: {name} has no pre-trained encoder; give a weights file or None")
    if options.get("encoder_weights") is not None:
        raise InputError(f"weights={weights!r} and encoder_weights={options['encoder_weights']!r}: give one of them")
    return weights


def _completed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options with defaults filled in, including nested ones such as ``decoder_options``."""
    completed = NETWORKS.describe(name).check(options)
    for key, value in completed.items():
        kind = key.removesuffix("_options")
        if kind != key and kind in KINDS:
            completed[key] = KINDS[kind].describe(completed[kind]).check(value or {})
    return completed
