"""Units, also called coupled groups: channels of several layers that must be removed together.

`hardy.pruning.units` finds them.
"""

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Kind", "Member", "Unit"]

Kind = Literal["filters", "heads", "hidden", "embedding"]
"""What the channels of a unit are: filters, attention heads, hidden channels of a feed-forward block, or channels of
the residual stream that transformer blocks read from and add to."""


@dataclass(frozen=True)
class Member:
    """One side of one module whose channels belong to a unit.

    Attributes:
        module: the module's name in the network.
        side: ``"out"`` for its output channels (filters, norms), ``"in"`` for its input channels, ``"heads"`` for
            the attributes and tables of an attention block, ``"name:axis"`` for an axis of its own parameter.
        channels: for each channel of the unit, the module's channels that belong to it; at the input of a grouped
            convolution, their index within every group.
        standardised: whether the layer standardises its weights over its input channels.
    """

    module: str
    side: str
    channels: tuple[tuple[int, ...], ...]
    standardised: bool = False


@dataclass(frozen=True)
class Unit:
    """A coupled group: channels that are removed together, one set of entries in every member per channel.

    Attributes:
        name: the module name of the first layer that produces these channels.
        size: number n of channels, and of gates.
        members: every module side whose channels belong to the unit.
        gates: the names of the member modules at which the unit's shared gate is: at their outputs if an output is a
            member, else at their inputs.
        kind: what the channels are.
        outputs: blocks of a residual stream that have the gate at their outputs instead (`hardy.pruning.residual`).
        within: the name of the unit that contains its channels. A channel that is removed only from this unit is
            masked; it is cut out together with that of the containing unit. Empty for other units.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    gates: tuple[str, ...] = ()
    kind: Kind = "filters"
    outputs: tuple[Member, ...] = ()
    within: str = ""

    def within_part(self, part: str) -> "Unit":
        """This unit of the submodule ``part``, with the module names of the complete network."""

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
        """For each member side of a layer, the number of its channels for one gate; (1,) without such a side."""
        return tuple(len(m.channels[0]) for m in self.members if m.side in ("out", "in")) or (1,)

    @property
    def gated(self) -> tuple[Member, ...]:
        """The gate sites: block outputs, member outputs, or the inputs of layers that read the unit."""
        if self.outputs:
            return self.outputs
        found = [member for member in self.members if member.module in self.gates]
        return tuple([m for m in found if m.side == "out"] or [m for m in found if m.side == "in"])
