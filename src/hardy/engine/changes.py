"""The changes of a network: attaching and merging a tuner, and replaying the changes that a file lists.

Pruning and folding record their own changes (`hardy.pruning.remove`, `hardy.deployment.folding`). The format of the
list is in `hardy.networks.building.changes`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.changes import Change, check_changes
from hardy.networks.building.described import in_proportion
from hardy.ops.tensors import checksum
from hardy.pruning.remove import replay as cut
from hardy.registry import TUNERS
from hardy.sections import Method
from hardy.tuning.base import Tuner

__all__ = ["attach", "finishing", "merge", "replay", "tuner_of", "untrained"]


def tuner_of(network: Network) -> Tuner | None:
    """The tuner that is attached to ``network``, if one is."""
    for change in reversed(network.changes):
        if change["change"] == "merge":
            return None
        if change["change"] == "tune":
            built: Tuner = TUNERS.build(change["name"], **change["options"])
            return built
    return None


def attach(network: Network, method: Method, *, filled: bool = True) -> None:
    """Attach the tuner ``method`` to ``network``, in place; its new weights are drawn from torch's generator.

    Args:
        network: what is tuned.
        method: the name and options of the tuner.
        filled: whether ``network`` has its weights; False if all weights, also those of the tuner, are loaded later.

    Raises:
        InputError: for a network that has a tuner already, or that this tuner does not support.
    """
    if tuner_of(network) is not None:
        name = next(change["name"] for change in reversed(network.changes) if change["change"] == "tune")
        raise InputError(
            f"tuner: the network is tuned by {name} already; leave tuner out to train that on, or merge it first "
            "(hardy.merge, or network.merge: true in a recipe)"
        )
    options = TUNERS.describe(method.name).check(method.options)
    tuner: Tuner = TUNERS.build(method.name, **options)
    if filled:
        tuner.attach(network)
    else:
        tuner.attach_unfilled(network)
    network.changes = [*network.changes, {"change": "tune", "name": method.name, "options": options}]
    network.origin = _with_rest(network)


def finishing(network: Network) -> Callable[[], None]:
    """What to call after the training of ``network``, to which a tuner has just been attached: `Tuner.finish`."""
    tuner = tuner_of(network)
    assert tuner is not None, "it has just been attached"
    state = network.state_dict()
    start = {name: state[name].clone() for name in tuner.remembered(network)}
    return lambda: tuner.finish(network, start)


def merge(network: Network) -> Network:
    """Merge the tuner that is attached to ``network`` into its weights, in place, and return the network.

    Its logits change by rounding only. The inserted modules are gone, and all weights can be trained.

    Raises:
        InputError: when no tuner is attached, or it cannot be merged exactly.
    """
    if (tuner := tuner_of(network)) is None:
        raise InputError("tuner: none is attached to this network, so there is nothing to merge")
    tuner.merge(network)
    network.resting, network.linked, network.origin = (), (), None
    network.requires_grad_(True).train(network.training)
    network.changes = [*network.changes, {"change": "merge"}]
    return network


def untrained(network: Network) -> frozenset[str]:
    """The names of the entries of ``network.state_dict()`` that the attached tuner freezes; none without a tuner."""
    tuner = tuner_of(network)
    return frozenset() if tuner is None else frozenset(network.state_dict()) - tuner.trained(network)


def replay(network: Network, changes: Any, *, size: int = 2**40) -> None:
    """Apply ``changes``, which come from a file, to ``network`` in place, in order; its weights are loaded afterwards.

    Args:
        network: in the form that it had before the first change.
        changes: see `hardy.networks.building.changes`.
        size: the size in bytes of the file with the weights; it limits the memory that is used.

    Raises:
        InputError: for a wrong format, changes of another network, a tuner that is unknown or not trusted, and options
            with which a tuner cannot be attached.
    """
    check_changes(changes)
    steps: dict[str, Callable[[Change], object]] = {
        "prune": lambda change: cut(network, change["plan"]),
        "tune": lambda change: attach(network, Method(name=change["name"], **change["options"]), filled=False),
        "merge": lambda change: merge(network),
        "fold": lambda change: _refold(network, change),
    }
    for change in changes:
        _tried(steps[change["change"]], change, size)


def _refold(network: Network, change: Change) -> None:
    from hardy.deployment.folding import refold  # here, since it imports timm, which takes seconds

    refold(network, change)


def _tried(step: Callable[[Change], object], change: Change, size: int) -> None:
    try:
        with in_proportion(size) if change["change"] == "tune" else nullcontext():
            step(change)
    except InputError:
        raise
    except Exception as error:  # impossible options of the right type can raise anything inside torch
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"the change {change['change']!r} cannot be applied ({reason})") from error


def _with_rest(network: Network) -> dict[str, Any] | None:
    """The origin of ``network``, which has just got a tuner, with the checksum of the weights that the tuner freezes.

    None when the origin does not have all of these weights: pre-trained encoder weights are not enough when other
    layers are frozen too, or when the encoder was changed before.
    """
    origin, names = network.origin, untrained(network)
    if origin is None or not names:
        return None
    state = network.state_dict()
    if "encoder_weights" in origin:
        encoder = {name for name, module in network.named_modules() if module in set(network.encoder())}
        inside = all(any(name.startswith(f"{module}.") for module in encoder) for name in names)
        if len(network.changes) > 1 or not inside:
            return None
    return {**origin, "rest": checksum({name: state[name] for name in names}, {})}
