"""Layers that the user excludes from pruning: no unit with a channel of such a layer is pruned."""

from collections.abc import Sequence

from hardy.errors import InputError, nearest
from hardy.networks.base import Network
from hardy.pruning.coupled import Unit

__all__ = ["left_alone"]


def left_alone(network: Network, units: Sequence[Unit], names: Sequence[str]) -> tuple[list[Unit], dict[str, str]]:
    """The units that may be pruned, and for each other unit, by the name that users know, the reason.

    An excluded layer keeps every weight. So the channels that it reads from other layers are kept too.

    Args:
        network: the network that has the units.
        units: the units that could be pruned.
        names: names of layers, or of modules for all layers inside, as users know them.

    Raises:
        InputError: for a name that ``network`` does not have.
    """
    known = {network.known_as(name): name for name, _ in network.named_modules() if network.known_as(name)}
    for name in names:
        if name not in known:
            title = type(network.get_submodule(network.part)).__name__
            raise InputError(f"prune.keep: {title} has no layer {name!r}{nearest(name, known)}")
    free, kept = [], {}
    for unit in units:
        reached = [network.known_as(member.module) for member in (*unit.members, *unit.outputs)]
        named = next((name for name in names if any(f"{one}.".startswith(f"{name}.") for one in reached)), None)
        if named is None:
            free.append(unit)
        else:
            kept[network.known_as(unit.name)] = f"prune.keep names {named}"
    return free, kept
