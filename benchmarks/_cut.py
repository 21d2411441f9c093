"""A copy of a network, cut to a goal by the l2 norm of its channels at once; its weights stay untrained."""

from collections.abc import Sequence
from copy import deepcopy

from hardy.networks.base import Network
from hardy.pruning.coupled import Unit
from hardy.pruning.goal import Goal
from hardy.pruning.schedules.base import Work
from hardy.pruning.schedules.one_shot import OneShot
from hardy.pruning.select import Limits, Removed
from hardy.registry import CRITERIA, LOSSES

__all__ = ["cut"]


def cut(dense: Network, units: Sequence[Unit], goal: Goal, limits: Limits) -> tuple[Network, Removed]:
    """The smaller network, and which channels of ``units`` were removed; ``dense`` does not change."""
    small = deepcopy(dense)
    loss = LOSSES.build("cross_entropy", {"class_count": len(dense.label_space)})
    criterion = CRITERIA.build("l2", {"network": small, "units": units, "pixel_loss": loss})
    return small, OneShot().run(Work(small, criterion, units, goal, limits)).removed
