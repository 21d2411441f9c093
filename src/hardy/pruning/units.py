"""Finds the units (coupled groups) of a network: channels that must be removed together.

Filters coupled by a residual sum, a depthwise convolution or a concatenation form one unit; each of its channels has
one gate. The heads of an attention block form a unit too, as do the hidden width of a feed-forward block and the width
of a residual stream with its norm layers, tokens and position embeddings. `survey` follows the channels of a copy of
the network (`hardy.pruning.tracing.trace`), groups channels that reach the same module sides into units, tests their
removal (`hardy.pruning.tracing.trial`), and reports which channels cannot be removed and why.

This file also chooses the gate sites of a unit. The gate of filters or of a residual stream is at an output. To find
it, start at each layer that reads the unit's channels and move towards the input of the network: the first norm layer
or convolution is the gate site. So in conv - BN - ReLU - depthwise conv - BN - ReLU - conv the site is the second BN.
If several blocks add to one residual stream, the sites are the last norm layers of the blocks. A gate before a norm
layer with batch statistics would have no effect: its gradient would be zero and its score noise. The gate of heads or
of a hidden width is at the input of the layers that read them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from hardy.networks.base import Network
from hardy.pruning.coupled import Kind, Member, Unit
from hardy.pruning.norms import CHANNEL_NORMS
from hardy.pruning.tracing.declared import declared
from hardy.pruning.tracing.trace import Atom, Trace, trace
from hardy.pruning.tracing.trial import tried

__all__ = ["Kind", "Member", "Survey", "Unit", "find_units", "survey"]


@dataclass(frozen=True)
class Survey:
    """Which channels of a network can be pruned.

    Attributes:
        units: the units, in the order of the network's modules.
        blocked: for channels that cannot be removed, the name of the first layer that produces them -> the reason.
    """

    units: tuple[Unit, ...]
    blocked: Mapping[str, str]


def find_units(network: nn.Module, example: Tensor | None = None) -> list[Unit]:
    """The units of ``network`` in the order of its modules; see `survey`."""
    return list(survey(network, example).units)


def survey(network: nn.Module, example: Tensor | None = None) -> Survey:
    """The units of ``network``, and the reasons why its other channels cannot be removed.

    The network and its batch statistics do not change. Channels that run only in training (auxiliary heads) are not
    units, because removing them does not make the deployed network smaller.

    Args:
        network: a `Network`, or any module whose forward pass takes one tensor.
        example: input for the trace, such as noise; needed only for a module that is not a `Network`.

    Raises:
        InputError: if an ``example`` is needed and missing, if the network does not run on it, or if a class declares a
            coupling that its module does not have.
    """
    if isinstance(network, Network) and network.part:
        given = network.example() if example is None else example
        found = survey(network.get_submodule(network.part), given)
        return replace(found, units=tuple(unit.within_part(network.part) for unit in found.units))
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
            units.append(_unit(name, module, channels, traced, network))
        else:
            blocked[name] = reason
    sound, refused = tried(network, units, example)
    return Survey(tuple(sound), {**blocked, **refused})


def _signature(atoms: Iterable[Atom], order: Mapping[str, int]) -> tuple[tuple[str, str, int], ...]:
    """The module sides that one channel reaches, each with the number of its channels that belong to it."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for module, side, _ in atoms:
        counts[module, side] += 1
    places = sorted(counts, key=lambda place: (order[place[0]], place[1] == "in"))
    return tuple((module, side, counts[module, side]) for module, side in places)


def _first(channels: Sequence[Sequence[Atom]], traced: Trace, order: Mapping[str, int]) -> tuple[int, int]:
    """The index of the first module that produces these channels, and the first of its channels among them."""
    makers = (atom for atoms in channels for atom in atoms if atom[:2] in traced.makers)
    return min((order[module], index) for module, _, index in makers)


def _unit(name: str, module: str, channels: Sequence[Sequence[Atom]], traced: Trace, network: nn.Module) -> Unit:
    ordered = sorted(channels, key=lambda atoms: min(i for m, s, i in atoms if m == module and (m, s) in traced.makers))
    order = {name: place for place, name in enumerate(traced.order)}
    rows = [_by_side(atoms) for atoms in ordered]
    sides = [(place, side) for place, side, _ in _signature(ordered[0], order)]
    members = [
        Member(*side, tuple(row[side] for row in rows), standardised=side[0] in traced.standardised) for side in sides
    ]
    kind = _kind(members, traced, network)
    if kind == "heads":
        gates = {traced.gates[member.module] for member in members if member.side == "heads"}
    elif kind == "hidden":
        gates = {member.module for member in members if member.side == "in"}
    else:
        passed = {member.module for member in members if member.side == "out"}
        taken = (traced.sources.get(atom, frozenset()) for atoms in ordered for atom in atoms)
        gates = passed & frozenset().union(*taken)
    return Unit(name, len(ordered), tuple(members), tuple(n for n in traced.order if n in gates), kind)


def _by_side(atoms: Iterable[Atom]) -> dict[tuple[str, str], tuple[int, ...]]:
    """For each module side that a channel reaches, the indices there, ascending."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for module, side, index in atoms:
        found[module, side].append(index)
    return {place: tuple(sorted(indices)) for place, indices in found.items()}


def _kind(members: Sequence[Member], traced: Trace, network: nn.Module) -> Kind:
    if any(member.side == "heads" for member in members):
        return "heads"
    blocks = {name for name, m in network.named_modules() if any(c.side in ("hidden", "heads") for c in declared(m))}
    made = {_within(m.module, blocks) for m in members if (m.module, m.side) in traced.makers}
    taken = {_within(m.module, blocks) for m in members if m.side == "in"}
    if len(made) == 1 and made == taken and None not in made:
        return "hidden"
    if taken - {None} or any(isinstance(network.get_submodule(m.module), CHANNEL_NORMS) for m in members):
        return "embedding"
    ends = [network.get_submodule(m.module) for m in members if m.side == "in" or (m.module, m.side) in traced.makers]
    return "hidden" if all(isinstance(module, nn.Linear) for module in ends) else "filters"


def _within(name: str, blocks: set[str]) -> str | None:
    """The outermost of ``blocks`` that the module ``name`` belongs to."""
    parts = name.split(".")
    return next((found for i in range(len(parts)) if (found := ".".join(parts[:i])) in blocks), None)
