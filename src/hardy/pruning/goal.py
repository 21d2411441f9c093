"""Goals: when enough was removed, and which channels of a round are the last ones needed.

A goal looks at what has gone and says whether that is enough. `Ratio` counts channels. Goals of cost (GMACs,
milliseconds) are in `hardy.pruning.cost_goal`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from hardy.pruning.coupled import Unit
from hardy.pruning.select import Limits, Removed, select, target

__all__ = ["Goal", "Ratio", "choose", "fewest", "joined"]


class Goal(Protocol):
    """What pruning is to reach."""

    def most(self, dead: Removed) -> int:
        """The most channels that may still go when ``dead`` have gone."""

    def met(self, dead: Removed) -> bool:
        """True when ``dead`` is enough."""

    def confirm(self, dead: Removed) -> bool:
        """True when what was chosen holds; False when the goal learned better, and it is to be chosen again."""


class Ratio:
    """A share of all channels.

    Args:
        units: what is pruned.
        ratio: the share REMOVED, in (0, 1).
        limits: what the selection respects.

    Raises:
        InputError: when ``ratio`` is not between 0 and 1, or the limits do not allow it.
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
        """See `Goal.confirmed`: a count is what it is."""
        return True


def joined(dead: Removed, chosen: Removed) -> Removed:
    """Both, each unit's channels ascending."""
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
    """The channels that go next: the lowest scores, no more than the goal needs.

    Args:
        scores: for each unit its (n,) scores.
        units: the units to take from.
        goal: what is to be reached.
        dead: the channels that have gone before.
        limits: scope, minimum width and rounding.
        at_most: the most channels taken now; all that the goal allows by default.
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
    """The fewest channels that are enough as far as the goal knows, or all that may go."""
    high = goal.most(dead) if at_most is None else min(at_most, goal.most(dead))
    chosen = select(scores, units, high, dead, limits)
    if not goal.met(joined(dead, chosen)):
        return chosen
    low = 0  # the fewest that are enough lie above `low` and up to `high`: cost falls with every channel
    while high - low > 1:
        middle = (low + high) // 2
        fewer = select(scores, units, middle, dead, limits)
        if goal.met(joined(dead, fewer)):
            high, chosen = middle, fewer
        else:
            low = middle
    return chosen
