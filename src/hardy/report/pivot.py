"""A table from records: a number by two sets of axes, mean and standard deviation over the rest, and paired sign tests.

A study writes the place of every record on its axes into the record's notes (``axes``, and ``of`` for the stage).

Source: the sign test is two-sided and exact, J. Arbuthnott, "An Argument for Divine Providence", Philosophical
Transactions 27, 1710; ties are left out, as W. J. Dixon and A. M. Mood, "The Statistical Sign Test", JASA 41, 1946, do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from hardy.records import Record

__all__ = [
    "Coordinates",
    "Duel",
    "Pivot",
    "Values",
    "chosen",
    "coordinates",
    "duel",
    "markdown",
    "pivot",
    "sign_test",
    "spread",
]

HEADLINES = ("miou", "accuracy")
"""Metrics of which a record of a target has one when no other is asked for."""

Coordinates = tuple[tuple[str, str], ...]
"""The labels of a cell on all axes, the stage under ``stage``: (axis, label) pairs, sorted."""

Values = dict[Coordinates, float]


@dataclass(frozen=True)
class Pivot:
    """A table ready to be printed: titles of its columns, of which the first ``labels`` hold text, its rows, and a
    note."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int
    note: str


@dataclass(frozen=True)
class Duel:
    """One value of an axis against another where both were measured with all else equal.

    Attributes:
        won: in how many pairs the first is higher.
        lost: in how many it is lower.
        tied: in how many both are equal.
        gain: mean difference, first less second.
        p: of the two-sided exact sign test.
    """

    won: int
    lost: int
    tied: int
    gain: float
    p: float


def chosen(records: Sequence[Record], target: str, metric: str | None = None) -> Values:
    """The number of ``target`` in every cell; without a ``metric`` the mean IoU or the accuracy."""
    found: Values = {}
    for record in records:
        right = record.metric == metric if metric else record.metric in HEADLINES
        if record.target == target and right and record.value is not None:
            found[coordinates(record.notes.get("of", record.stage), record.notes.get("axes", {}))] = record.value
    return found


def coordinates(stage: str, axes: Mapping[str, str]) -> Coordinates:
    """The place of a cell."""
    return tuple(sorted({**axes, "stage": stage}.items()))


def pivot(
    values: Values, places: Sequence[Coordinates], rows: Sequence[str], columns: Sequence[str], *, percent: bool = True
) -> Pivot:
    """Mean ± sample standard deviation over all axes that are neither in ``rows`` nor in ``columns``.

    With more than one column a last one holds the mean over them, taken before the spread and only where all columns
    are measured. A cell without an axis has a dash there; with several stages, the stage is an axis.

    Args:
        values: what was measured.
        places: all cells there are, measured or not, in order; a number over only some of its cells shows how many.
        rows: axes down.
        columns: axes across.
        percent: show numbers in [0, 1] as percentages.
    """
    stages = dict.fromkeys(dict(where)["stage"] for where in places)
    down = ["stage", *rows] if len(stages) > 1 and "stage" not in (*rows, *columns) else list(rows)
    across = _distinct(places, columns)
    lines = []
    for row in _distinct(places, down):
        here = [where for where in places if _part(where, down) == row]
        texts = []
        for column in across:
            cells = [where for where in here if _part(where, columns) == column]
            texts.append(spread([values[where] for where in cells if where in values], len(cells), percent=percent))
        if len(across) > 1:
            texts.append(spread(*_means(values, here, columns), percent=percent))
        lines.append((*row, *texts))
    names = [" ".join(column) or "value" for column in across] + ["mean"] * (len(across) > 1)
    rest = [
        name for name in dict.fromkeys(name for where in places for name, _ in where) if name not in (*down, *columns)
    ]
    rest = [name for name in rest if name != "stage"]
    note = f"mean ± standard deviation over {', '.join(rest)}" if rest else ""
    return Pivot((*down, *names), tuple(lines), len(down), note)


def duel(values: Values, axis: str, first: str, second: str) -> Duel:
    """Compare two values of ``axis`` over all pairs that agree in every other axis."""
    sides: tuple[Values, Values] = ({}, {})
    for where, value in values.items():
        rest = tuple(pair for pair in where if pair[0] != axis)
        for side, name in zip(sides, (first, second), strict=True):
            if (axis, name) in where:
                side[rest] = value
    gains = [sides[0][rest] - sides[1][rest] for rest in sides[0] if rest in sides[1]]
    won, lost = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return Duel(won, lost, len(gains) - won - lost, fmean(gains) if gains else math.nan, sign_test(won, lost))


def sign_test(won: int, lost: int) -> float:
    """Two-sided exact p of ``won`` and ``lost`` under a fair coin: ``min(1, 2 P(X <= min))``, X of Binomial(n, 1/2)."""
    count = won + lost
    tail = sum(math.comb(count, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / (1 << count))


def spread(numbers: Sequence[float], planned: int, *, percent: bool = True) -> str:
    """``mean ± standard deviation`` (n - 1), the mean alone of one number, a dash of none; (2/3) where some lack.

    What is no percentage has four digits, or, from a mean of 10,000 up, all before the point.
    """
    if not numbers:
        return "–" if planned else ""
    moments = [fmean(numbers), *([stdev(numbers)] if len(numbers) > 1 else [])]
    lacking = f" ({len(numbers)}/{planned})" if len(numbers) < planned else ""
    scale, digits = (100, ".1f") if percent else (1, ",.0f" if abs(moments[0]) >= 1e4 else ".4g")
    return " ± ".join(f"{scale * value:{digits}}" for value in moments) + lacking


def markdown(table: Pivot) -> list[str]:
    """The lines of ``table`` in Markdown."""
    rule = "|".join("---" if index < table.text_columns else "---:" for index in range(len(table.columns)))
    return [
        f"| {' | '.join(table.columns)} |",
        f"|{rule}|",
        *(f"| {' | '.join(row)} |" for row in table.rows),
        *(["", f"{table.note}."] if table.note else []),
    ]


def _means(values: Values, here: Sequence[Coordinates], columns: Sequence[str]) -> tuple[list[float], int]:
    """For each place on the axes that are not columns the mean over its columns, where all are there; and how many."""
    groups: dict[Coordinates, list[Coordinates]] = {}
    for where in here:
        groups.setdefault(tuple(pair for pair in where if pair[0] not in columns), []).append(where)
    whole = [group for group in groups.values() if all(where in values for where in group)]
    return [fmean(values[where] for where in group) for group in whole], len(groups)


def _part(where: Coordinates, axes: Sequence[str]) -> tuple[str, ...]:
    labels = dict(where)
    return tuple(labels.get(axis, "–") for axis in axes)


def _distinct(places: Sequence[Coordinates], axes: Sequence[str]) -> list[tuple[str, ...]]:
    """The combinations of ``axes`` that occur, in order of first appearance."""
    return list(dict.fromkeys(_part(where, axes) for where in places))
