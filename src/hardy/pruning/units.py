"""Units: the channels of a network that must be removed together.

Filters tied by a residual sum, by a depthwise convolution or by a concatenation form one unit; each of its channels
is one gate. `survey` traces a copy of the network (`hardy.pruning.trace`), joins everything that follows the same
channel, and sorts the channels that reach the same places into units; it also tells which channels cannot go, and why.

Where the gate of a unit sits is decided here too, because it takes the graph: from every layer that consumes the
unit's channels walk back; the first norm met carries the gate, and a convolution met before any norm carries it
itself. So in conv - BN - ReLU - depthwise conv - BN - ReLU - conv it is the second norm, and where several blocks add
into one residual stream it is the last norm of each. A gate in front of a norm that uses batch statistics would be
undone by that norm: its gradient is zero and its score noise.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hardy.pruning.trace import Atom, Trace, trace

__all__ = ["Member", "Survey", "Unit", "find_units", "survey"]


@dataclass(frozen=True)
class Member:
    """One side of one module that follows a unit.

    Attributes:
        module: the module's name in the network.
        side: ``"out"`` for its output channels (filters, norms), ``"in"`` for its input channels.
        channels: for channel c of the unit the module's channels that go with it.
    """

    module: str
    side: str
    channels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Unit:
    """A set of coupled filters, all of one width.

    Attributes:
        name: the module name of the first layer that makes these channels.
        size: number n of channels, of gates.
        members: every module side that follows.
        gates: the modules, among the members, at whose output the unit's shared gate sits.
        kind: ``"filters"`` of convolutions, ``"heads"`` of an attention, ``"hidden"`` width of an MLP, or
            ``"embedding"`` width of a transformer's residual stream.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    gates: tuple[str, ...] = ()
    kind: str = "filters"


@dataclass(frozen=True)
class Survey:
    """What of a network can be pruned.

    Attributes:
        units: the units, in the order of the network's modules.
        blocked: for channels that cannot go, by the name of the first layer that makes them, the reason.
    """

    units: tuple[Unit, ...]
    blocked: Mapping[str, str]


def find_units(network: nn.Module, example: Tensor | None = None) -> list[Unit]:
    """The units of ``network`` in the order of its modules; see `survey`."""
    return list(survey(network, example).units)


def survey(network: nn.Module, example: Tensor | None = None) -> Survey:
    """The units of ``network`` and the reasons why the rest of its channels cannot go.

    The network is left as it is, batch statistics included. Channels that run only while training (auxiliary heads)
    are no units: removing them makes nothing smaller that is shipped.

    Args:
        network: a `Network`, or any module whose forward pass takes one tensor.
        example: what to trace with, at least two samples; needed only for a module that is no `Network`.

    Raises:
        InputError: when an ``example`` is needed and missing.
    """
    traced = trace(network, example)
    order = {name: place for place, name in enumerate(traced.order)}
    groups: dict[tuple[tuple[str, str, int], ...], list[list[Atom]]] = defaultdict(list)
    for atoms in traced.channels:
        groups[_signature(atoms, order)].append(atoms)
    units: list[Unit] = []
    blocked: dict[str, str] = {}
    taken: dict[str, int] = {}
    named = sorted((_first(channels, traced, order), channels) for channels in groups.values())
    for (place, first), channels in named:
        module = traced.order[place]
        name = module if taken.get(module) is None else f"{module}:{first}"
        taken[module] = first
        reason = next((traced.blocked[atom] for atoms in channels for atom in atoms if atom in traced.blocked), None)
        if reason is None:
            units.append(_unit(name, module, channels, traced, order))
        else:
            blocked[name] = reason
    return Survey(tuple(units), blocked)


def _signature(atoms: Iterable[Atom], order: Mapping[str, int]) -> tuple[tuple[str, str, int], ...]:
    """The module sides that one channel reaches, with how many of their channels go with it."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for module, side, _ in atoms:
        counts[module, side] += 1
    places = sorted(counts, key=lambda place: (order[place[0]], place[1] == "in"))
    return tuple((module, side, counts[module, side]) for module, side in places)


def _first(channels: Sequence[Sequence[Atom]], traced: Trace, order: Mapping[str, int]) -> tuple[int, int]:
    """Where the first layer that makes these channels stands, and its first channel among them."""
    makers = (atom for atoms in channels for atom in atoms if atom[1] == "out" and atom[0] in traced.makers)
    return min((order[module], index) for module, _, index in makers)


def _unit(name: str, module: str, channels: Sequence[Sequence[Atom]], traced: Trace, order: Mapping[str, int]) -> Unit:
    ordered = sorted(channels, key=lambda atoms: min(i for m, side, i in atoms if (m, side) == (module, "out")))
    places = [(place, side) for place, side, _ in _signature(ordered[0], order)]
    members = []
    for place, side in places:
        rows = (tuple(sorted(i for m, s, i in atoms if (m, s) == (place, side))) for atoms in ordered)
        members.append(Member(place, side, tuple(rows)))
    passed = {place for place, side in places if side == "out"}
    consumers = [place for place, side in places if side == "in"]
    return Unit(name, len(ordered), tuple(members), traced.gates(passed, consumers))
