"""Goals: whether enough channels are removed, and which channels a round removes to reach the goal.

A goal decides from the removed channels whether they are enough. `Ratio` counts channels. `hardy.pruning.cost_goal` has
the goals for cost (GMACs, milliseconds).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from hardy.pruning.coupled import Unit
from hardy.pruning.select import Limits, Removed, blocks, select, target

__all__ = ["Goal", "Ratio", "choose", "fewest", "joined"]


class Goal(Protocol):
    """Decides whether pruning has removed enough. ``dead`` are the channels that are masked or removed so far."""

    def most(self, dead: Removed) -> int:
        """The largest number of channels that may be removed in addition to ``dead``."""

    def met(self, dead: Removed) -> bool:
        """True if ``dead`` is enough."""

    def confirm(self, dead: Removed) -> bool:
        """True if ``dead`` is accepted; False if a measurement corrected the goal, in place, so that channels must be
        chosen again."""


class Ratio:
    """A share of all channels.

    Args:
        units: the units to prune.
        ratio: the share REMOVED, in (0, 1).
        limits: limits of the selection.

    Raises:
        InputError: if ``ratio`` is not between 0 and 1, is less than one channel, or the limits do not allow it.
    """

    def __init__(self, units: Sequence[Unit], ratio: float, limits: Limits) -> None:
        self.count = target(units, ratio, limits)

    def most(self, dead: Removed) -> int:
        """See `Goal.most`."""
        return self.count - sum(map(len, dead.values()))

    def met(self, dead: Removed) -> bool:
        """See `Goal.met`."""
        return self.most(dead) <= 0

    def confirm(self, dead: Removed) -> bool:
        """See `Goal.confirm`: a count needs no confirmation."""
        return True


def joined(dead: Removed, chosen: Removed) -> Removed:
    """The union of two removals without common channels; the channels of each unit ascend."""
    names = dict.fromkeys([*dead, *chosen])
    return {name: sorted([*dead.get(name, ()), *chosen.get(name, ())]) for name in names}


def choose(
    scores: Mapping[str, Tensor],
    units: Sequence[Unit],
    goal: Goal,
    dead: Removed,
    limits: Limits,
    at_most: int | None = None,
) -> Removed:
    """The channels to remove next: the lowest scores, no more than the goal needs.

    Args:
        scores: for each unit its (n,) scores.
        units: the units to take from.
        goal: what to reach.
        dead: the channels removed before.
        limits: scope, minimum width and rounding.
        at_most: the largest number of channels to remove now; by default as many as the goal allows.
    """
    chosen = fewest(scores, units, goal, dead, limits, at_most)
    while goal.met(joined(dead, chosen)) and not goal.confirm(joined(dead, chosen)):
        chosen = fewest(scores, units, goal, dead, limits, at_most)
    return chosen


def fewest(
    scores: Mapping[str, Tensor],
    units: Sequence[Unit],
    goal: Goal,
    dead: Removed,
    limits: Limits,
    at_most: int | None = None,
) -> Removed:
    """The smallest number of lowest-scored channels that meets the goal, or all that may be removed.

    The arguments are those of `choose`. A cost goal uses its current prediction. Where channels go in blocks, the last
    block can save much more than was needed; blocks that the goal can do without are then kept (`_spared`).
    """
    high = goal.most(dead) if at_most is None else min(at_most, goal.most(dead))
    chosen = select(scores, units, high, dead, limits)
    if not goal.met(joined(dead, chosen)):
        return chosen
    low = 0  # the smallest sufficient count is in (low, high]: the cost falls with every channel
    while high - low > 1:
        middle = (low + high) // 2
        fewer = select(scores, units, middle, dead, limits)
        if goal.met(joined(dead, fewer)):
            high, chosen = middle, fewer
        else:
            low = middle
    return (
        chosen
        if limits.round_to == 1 or limits.scope == "layer"
        else _spared(scores, units, goal, dead, limits, chosen)
    )


def _spared(
    scores: Mapping[str, Tensor], units: Sequence[Unit], goal: Goal, dead: Removed, limits: Limits, chosen: Removed
) -> Removed:
    """``chosen``, which meets the goal, without the blocks that are not needed for it; the highest scores stay first.

    Of each unit the blocks stay from the last one on, so that what is removed are its lowest channels.
    """
    needed: set[int] = set()
    for _, place, _, channels in reversed(blocks(scores, units, dead, limits)):
        name = units[place].name
        taken = set(chosen.get(name, ()))
        if place in needed or not taken.issuperset(channels):
            continue
        fewer = {**chosen, name: sorted(taken.difference(channels))}
        if goal.met(joined(dead, fewer)):
            chosen = {unit: left for unit, left in fewer.items() if left}
        else:
            needed.add(place)
    return chosen
