"""The stop rule: of what would go now, as much as the network bears."""

import logging

from torch import Tensor

from hardy.errors import InputError
from hardy.pruning.goal import joined
from hardy.pruning.schedules.base import Work
from hardy.pruning.select import Removed, select

__all__ = ["allowed", "refuse_all"]

logger = logging.getLogger("hardy")

_PARTS = 100
"""The largest part that is borne is found to one in this many of the channels asked about."""


def allowed(work: Work, scores: dict[str, Tensor], dead: Removed, chosen: Removed) -> Removed:
    """``chosen`` where ``work.good`` bears it, else the largest part of it, lowest scores first, that it bears.

    That part is found by halving: about seven questions, each a measurement; that bearing fewer channels is no harder
    is taken for granted.

    Raises:
        InputError: when nothing is gone and nothing may go.
    """
    if work.good is None or not chosen or work.good(joined(dead, chosen)):
        return chosen
    high = sum(map(len, chosen.values()))
    low, step, best = 0, max(1, high // _PARTS), dict[str, list[int]]()
    refused = chosen
    while high - low > step:
        middle = (low + high) // 2
        fewer = select(scores, work.units, middle, dead, work.limits)
        if fewer != refused and (fewer == best or work.good(joined(dead, fewer))):
            low, best = middle, fewer
        else:
            high, refused = middle, fewer
    if not any(joined(dead, best).values()):
        refuse_all()
    logger.info("prune: the stop rule lets %d more channels go", sum(map(len, best.values())))
    return best


def refuse_all() -> None:
    """Raise the `InputError` of a stop rule that lets nothing go."""
    raise InputError(
        "prune.stop: no channel can go without a fall of more than prune.stop.drop; raise it, or use a schedule that "
        "trains more between its rounds"
    )
