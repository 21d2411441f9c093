"""The stop rule: how many of the chosen channels can be removed before the score falls by too much."""

import logging

from torch import Tensor

from hardy.errors import InputError
from hardy.pruning.goal import joined
from hardy.pruning.schedules.base import Work
from hardy.pruning.select import Removed, select

__all__ = ["allowed", "refuse_all"]

logger = logging.getLogger("hardy")

_PARTS = 100
"""The size of the largest allowed part is accurate to the number of chosen channels divided by this."""


def allowed(work: Work, scores: dict[str, Tensor], dead: Removed, chosen: Removed) -> Removed:
    """``chosen`` if ``work.good`` allows it, else its largest part that is allowed, lowest scores first.

    Bisection finds this part with about seven measurements. It assumes that removing fewer channels is never worse.

    Raises:
        InputError: if nothing has been removed so far and nothing may be removed.
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
    logger.info("prune: the stop rule allows %d more channels", sum(map(len, best.values())))
    return best


def refuse_all() -> None:
    """Raise the `InputError` of a stop rule that allows no removal."""
    raise InputError(
        "prune.stop: any removal lowers the score by more than prune.stop.drop; raise it, or use a pruning schedule "
        "that trains more between its rounds"
    )
