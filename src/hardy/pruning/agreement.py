"""The agreement of two scores of the same channels: their rank correlation, and the share of kept channels in common.

Masked channels do not count. For the scores of two independent halves of the data the rank correlation is the
reliability of a criterion. For the scores of another criterion it shows whether the two differ at all.

Source: Spearman, "The proof and measurement of association between two things", American Journal of Psychology 1904;
equal scores share the mean of their ranks.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.goal import Goal, fewest, joined
from hardy.pruning.select import Limits, Removed, select

__all__ = ["kept_alike", "rank_correlation", "readings"]

Scores = Mapping[str, Tensor]


def readings(
    criterion: Criterion, units: Sequence[Unit], goal: Goal, dead: Removed, limits: Limits
) -> dict[str, float]:
    """Numbers about what ``criterion`` has collected, before more channels than ``dead`` are masked.

    Returns:
        `Criterion.readings`; ``reliability``, the rank correlation of the criterion's two halves; for each rival
        ``<name>_rank``, the rank correlation with it; and before the first removal ``<name>_kept``, see `kept_alike`.
        Undefined correlations are left out, and ``reliability`` for a criterion without halves.
    """
    found = dict(criterion.readings())
    if (halves := criterion.halves()) is not None:
        found |= _named("reliability", rank_correlation(*halves, dead))
    own = criterion.scores() if (rivals := criterion.rivals()) else {}
    for name, scores in rivals.items():
        found |= _named(f"{name}_rank", rank_correlation(own, scores, dead))
        if not any(dead.values()):  # several selections, too slow for every round
            found[f"{name}_kept"] = kept_alike(own, scores, units, goal, dead, limits)
    return found


def rank_correlation(one: Scores, other: Scores, dead: Removed | None = None) -> float | None:
    """Spearman's rank correlation in [-1, 1] over all channels that are not ``dead``; None if a score is constant.

    Args:
        one: the unit's name -> (n,) scores.
        other: scores of the same channels.
        dead: channels that do not count.
    """
    ranks = [_ranks(_alive(scores, dead or {})) for scores in (one, other)]
    first, second = (values - values.mean() for values in ranks)
    size = float(first.norm() * second.norm())
    return float(first @ second) / size if size else None


def kept_alike(one: Scores, other: Scores, units: Sequence[Unit], goal: Goal, dead: Removed, limits: Limits) -> float:
    """The share of the channels kept by the scores ``one`` that the scores ``other`` keep too, in [0, 1].

    ``one`` removes the fewest channels that meet the goal, and ``other`` removes the same number.
    """
    chosen = fewest(one, units, goal, dead, limits)
    instead = select(other, units, sum(map(len, chosen.values())), dead, limits)
    gone, too = joined(dead, chosen), joined(dead, instead)
    kept = sum(unit.size - len(gone.get(unit.name, ())) for unit in units)
    both = sum(unit.size - len({*gone.get(unit.name, ()), *too.get(unit.name, ())}) for unit in units)
    return both / max(kept, 1)


def _named(name: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {name: value}


def _alive(scores: Scores, dead: Removed) -> Tensor:
    """The scores of all channels that are not ``dead``, in one (G,) float64 tensor."""
    parts = []
    for name, values in scores.items():
        alive = torch.ones(len(values), dtype=torch.bool)
        alive[list(dead.get(name, ()))] = False
        parts.append(values[alive].double())
    return torch.cat(parts)


def _ranks(values: Tensor) -> Tensor:
    """(G,) ranks from 1; equal values share their mean rank."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = (last - (counts - 1) / 2)[place]
    return ranks
