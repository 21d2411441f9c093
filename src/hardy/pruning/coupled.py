"""Coupled groups: channels of several layers that must be removed together, and the sides of the layers they lie on.

How they are found is in `hardy.pruning.units`.
"""

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Kind", "Member", "Unit"]

Kind = Literal["filters", "heads", "hidden", "embedding"]
"""What the channels of a unit are: filters, attention heads, hidden channels of a feed-forward block, or channels of
the residual stream that such blocks read and add to."""


@dataclass(frozen=True)
class Member:
    """One side of one module that follows a unit.

    Attributes:
        module: the module's name in the network.
        side: ``"out"`` for its output channels (filters, norms), ``"in"`` for its input channels, ``"heads"`` for
            the attributes and tables of an attention block, ``"name:axis"`` for a parameter that it holds itself.
        channels: for channel c of the unit the module's channels that go with it; at the input of a grouped
            convolution their place in every group.
        standardised: the layer standardises its weights, over the channels that it takes in.
    """

    module: str
    side: str
    channels: tuple[tuple[int, ...], ...]
    standardised: bool = False


@dataclass(frozen=True)
class Unit:
    """A set of coupled channels, all of one width.

    Attributes:
        name: the module name of the first layer that makes these channels.
        size: number n of channels, of gates.
        members: every module side that follows.
        gates: the modules, among the members, at which the unit's shared gate sits: at the output of those that are
            members by it, or else at the input.
        kind: what the channels are.
        outputs: blocks of a residual stream at whose outputs the gate sits instead (`hardy.pruning.residual`).
        within: the name of the unit that its channels are part of; they are masked, and cut out only with that.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    gates: tuple[str, ...] = ()
    kind: Kind = "filters"
    outputs: tuple[Member, ...] = ()
    within: str = ""

    def within_part(self, part: str) -> "Unit":
        """The unit of a module that is the submodule ``part`` of a network, with the names that the network gives."""

        def named(name: str) -> str:
            return f"{part}.{name}" if name else part

        def moved(members: tuple[Member, ...]) -> tuple[Member, ...]:
            return tuple(replace(member, module=named(member.module)) for member in members)

        return replace(
            self,
            name=named(self.name),
            members=moved(self.members),
            gates=tuple(map(named, self.gates)),
            outputs=moved(self.outputs),
            within=named(self.within) if self.within else "",
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """How many channels of each layer's sides go with one gate."""
        return tuple(len(m.channels[0]) for m in self.members if m.side in ("out", "in")) or (1,)

    @property
    def gated(self) -> tuple[Member, ...]:
        """Where the gate sits: at blocks, at members' outputs, or at the inputs of what takes the unit's channels."""
        if self.outputs:
            return self.outputs
        found = [member for member in self.members if member.module in self.gates]
        return tuple([m for m in found if m.side == "out"] or [m for m in found if m.side == "in"])
