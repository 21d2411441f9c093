"""Arms of a comparison and the pairs between them, and what a cell's records say of its scores and its cost.

An arm is what is compared: the cells that differ only in the axes along which pairs are formed, such as seed and fold.

Cost is recorded in two ways. A pruned cell has its own milliseconds and those of the network it came from, timed in
turns: their ratio is what is trusted, and it is multiplied with the median of that network's times over all cells, so
that load on the machine in between does not matter. The cost of a method is the seconds of its own stages (training,
scoring, recovery), in plain training steps: divided by the seconds of a step of the plain arm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from hardy.records import Record
from hardy.report.pivot import HEADLINES, CellValues, Coordinates, chosen, coordinates

__all__ = ["Arms", "Cost", "arms", "groups", "own_cost", "plain_step", "scores", "size", "steps"]

Arms = dict[str, dict[Coordinates, Coordinates]]
"""Arm -> labels on the axes of the pairs -> the cell there."""

STAGES = ("train", "score", "recover")
"""Stages of a cell whose seconds and steps are recorded."""


@dataclass(frozen=True)
class Cost:
    """The cost of a cell in plain training steps; a lower bound where the seconds of a stage were not recorded."""

    steps: float
    bound: bool = False


def groups(places: Sequence[Coordinates], by: Sequence[str]) -> dict[Coordinates, list[Coordinates]]:
    """Labels on the axes ``by`` -> the cells with them; a cell without one of these axes is in every group."""
    found: dict[Coordinates, list[Coordinates]] = {
        group: [] for group in dict.fromkeys(_on(where, by) for where in places if len(_on(where, by)) == len(by))
    }
    for group, cells in found.items():
        cells += [where for where in places if set(_on(where, by)) <= set(group)]
    return found


def arms(places: Sequence[Coordinates], pairs: Sequence[str], axes: Sequence[str], by: Sequence[str] = ()) -> Arms:
    """The arms of these cells, in order.

    An arm is called by its stage, where there are several, and its labels on all axes that are neither in ``pairs`` nor
    in ``by``, in the order of ``axes``.
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

    The mean IoU and the accuracy are recorded so; of another ``metric`` the domains are recorded, and these are the
    means over the sources and over the unseen ones, and the lowest of the latter.
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
    """``gmacs`` or ``milliseconds_p50_eager`` and the like of every cell that the records have it for.

    Args:
        records: of the cells.
        places: the cells.
        after: stage -> the stage whose networks its cells continue from.
        name: of the cost.
        turns: for a cost that was timed before and after in turns, so that only the ratio is comparable between cells:
            the axes along which networks cost the same.
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
    """What every cell took: ``train_seconds``, ``score_steps`` and the like."""
    found: dict[Coordinates, dict[str, float]] = {}
    for record in records:
        mine = found.setdefault(_where(record), {})
        mine.update({name: max(value, mine.get(name, value)) for name, value in record.cost.items()})
    return found


def plain_step(took: Sequence[Mapping[str, float]]) -> float | None:
    """Seconds of a training step, the median over these cells; None where no cell has a record of it."""
    rates = [
        one["train_seconds"] / one["train_steps"]
        for one in took
        if one.get("train_steps", 0) > 0 and one.get("train_seconds", 0) > 0
    ]
    return median(rates) if rates else None


def own_cost(took: Mapping[str, float], rate: float | None) -> Cost | None:
    """What a cell took in plain steps of ``rate`` seconds, without what it continues from; None without a record.

    A stage of which only the number of steps is known counts as that many: a lower bound, as a step of a method may
    take several passes.
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
    """Cell -> the cell that it continues from, where that is among ``places``."""
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
