"""The arms of a comparison, the pairs between them, and the recorded scores and costs of cells.

An arm is a set of cells that differ only in the axes of the pairs, such as seed and fold.

There are two kinds of cost. The first is the cost of a network. A pruned cell has its own milliseconds and those of the
network that it came from, timed in turns. Only their ratio is reliable, so it is multiplied by the median of that
network's times over all cells; then the load on the machine between the cells does not matter. The second is the cost
of a method: the seconds of its stages (training, scoring, recovery) in plain training steps, that is, divided by the
seconds of a training step of the plain arm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from hardy.records import Record
from hardy.report.pivot import HEADLINES, CellValues, Coordinates, chosen, coordinates

__all__ = ["Arms", "Cost", "arms", "groups", "own_cost", "plain_step", "scores", "size", "steps"]

Arms = dict[str, dict[Coordinates, Coordinates]]
"""Arm -> labels on the axes of the pairs -> cell."""

STAGES = ("train", "score", "recover")
"""Stages of a cell whose seconds and steps are recorded."""


@dataclass(frozen=True)
class Cost:
    """The cost of a cell in plain training steps; ``bound`` means a lower bound: the seconds of a stage are unknown."""

    steps: float
    bound: bool = False


def groups(places: Sequence[Coordinates], by: Sequence[str]) -> dict[Coordinates, list[Coordinates]]:
    """Labels on the axes ``by`` -> cells with these labels. A cell without one of the axes is in all groups that
    fit."""
    found: dict[Coordinates, list[Coordinates]] = {
        group: [] for group in dict.fromkeys(_on(where, by) for where in places if len(_on(where, by)) == len(by))
    }
    for group, cells in found.items():
        cells += [where for where in places if set(_on(where, by)) <= set(group)]
    return found


def arms(places: Sequence[Coordinates], pairs: Sequence[str], axes: Sequence[str], by: Sequence[str] = ()) -> Arms:
    """The arms of these cells, in order.

    The name of an arm is its stage, if there are several stages, and its labels on all axes that are neither in
    ``pairs`` nor in ``by``, in the order of ``axes``.
    """
    stages = dict.fromkeys(dict(where)["stage"] for where in places)
    named = [*(["stage"] if len(stages) > 1 else []), *(axis for axis in axes if axis not in (*pairs, *by))]
    found: Arms = {}
    for where in places:
        labels = dict(where)
        name = " ".join(labels[axis] for axis in named if axis in labels) or labels["stage"]
        found.setdefault(name, {})[_on(where, pairs)] = where
    return found


def scores(records: Sequence[Record], metric: str | None = None) -> dict[str, CellValues]:
    """``intra``, ``unseen`` and ``worst`` of every cell.

    For the mean IoU and the accuracy they are recorded. For another ``metric`` only the domains are recorded; then they
    are the mean over the sources, the mean over the unseen domains, and the lowest value of an unseen domain.
    """
    if metric is None or metric in HEADLINES:
        return {name: chosen(records, name, metric) for name in ("intra", "unseen", "worst")}
    domains: dict[Coordinates, tuple[list[float], list[float]]] = {}
    for record in records:
        if record.metric == metric and "/" in record.target and record.value is not None:
            away = record.target not in record.sources
            domains.setdefault(_where(record), ([], []))[away].append(record.value)
    reduced: dict[str, tuple[int, Callable[[Sequence[float]], float]]] = {
        "intra": (0, fmean),
        "unseen": (1, fmean),
        "worst": (1, min),
    }
    return {
        name: {where: over(both[side]) for where, both in domains.items() if both[side]}
        for name, (side, over) in reduced.items()
    }


def size(
    records: Sequence[Record],
    places: Sequence[Coordinates],
    after: Mapping[str, str | None],
    name: str,
    *,
    turns: Sequence[str] | None = None,
) -> CellValues:
    """A cost such as ``gmacs`` or ``milliseconds_p50_eager`` of every cell that has a record of it.

    Args:
        records: of the cells.
        places: the cells.
        after: stage -> the stage whose networks its cells continue from.
        name: of the cost.
        turns: for a cost that was timed before and after in turns, so that only the ratio is comparable between cells:
            the axes on which the cost of a network does not depend. None for other costs.
    """
    own, before, left = (chosen(records, "cost", f"{name}{when}") for when in ("", "_before", "_after"))
    parents = _parents(places, after)

    def alike(where: Coordinates) -> Coordinates:
        return where if turns is None else tuple(pair for pair in where if pair[0] not in turns)

    measured: dict[Coordinates, list[float]] = {}
    for where, parent in parents.items():
        if where in before:
            measured.setdefault(alike(parent), []).append(before[where])
    found: CellValues = {}
    for where in places:
        if where in own:
            found[where] = own[where]
        elif where in left:
            in_turns = turns is not None and where in before and where in parents
            by = median(measured[alike(parents[where])]) / before[where] if in_turns else 1.0
            found[where] = left[where] * by
        elif alike(where) in measured:
            found[where] = median(measured[alike(where)])
    return found


def steps(records: Sequence[Record]) -> dict[Coordinates, dict[str, float]]:
    """The seconds and steps of every cell, by names such as ``train_seconds`` and ``score_steps``."""
    found: dict[Coordinates, dict[str, float]] = {}
    for record in records:
        mine = found.setdefault(_where(record), {})
        mine.update({name: max(value, mine.get(name, value)) for name, value in record.cost.items()})
    return found


def plain_step(took: Sequence[Mapping[str, float]]) -> float | None:
    """The seconds of a training step, the median over these cells; None if no cell has a record of them."""
    rates = [
        one["train_seconds"] / one["train_steps"]
        for one in took
        if one.get("train_steps", 0) > 0 and one.get("train_seconds", 0) > 0
    ]
    return median(rates) if rates else None


def own_cost(took: Mapping[str, float], rate: float | None) -> Cost | None:
    """The cost of a cell in plain steps of ``rate`` seconds, without the cell that it continues from.

    None without a record. If only the number of steps of a stage is known, this number is used. It is a lower bound,
    because a step of a method can need several passes.
    """
    total, bound, known = 0.0, False, False
    for stage in STAGES:
        seconds, count = took.get(f"{stage}_seconds"), took.get(f"{stage}_steps")
        if seconds is not None and rate:
            total += seconds / rate
        elif count is not None:
            total += count
            bound = bound or count > 0
        known = known or seconds is not None or count is not None
    return Cost(total, bound) if known else None


def _parents(places: Sequence[Coordinates], after: Mapping[str, str | None]) -> dict[Coordinates, Coordinates]:
    """Cell -> the cell that it continues from, if that is among ``places``."""
    there = set(places)
    axes = {dict(where)["stage"]: {axis for axis, _ in where} for where in places}
    found = {}
    for where in places:
        labels = dict(where)
        before = after.get(labels["stage"])
        if before in axes:
            parent = tuple(sorted({**{one: labels.get(one, "") for one in axes[before]}, "stage": before}.items()))
            if parent in there:
                found[where] = parent
    return found


def _where(record: Record) -> Coordinates:
    return coordinates(record.notes.get("of", record.stage), record.notes.get("axes", {}))


def _on(where: Coordinates, axes: Sequence[str]) -> Coordinates:
    return tuple(pair for pair in where if pair[0] in axes)
