"""Tables from records: a number by two sets of axes, mean and standard deviation over the rest; paired sign tests.

A study writes the coordinates of every record into the record's notes (``axes``, and ``of`` for the stage).

Source: the sign test is two-sided and exact, J. Arbuthnott, "An Argument for Divine Providence", Philosophical
Transactions 27, 1710; ties are left out, as W. J. Dixon and A. M. Mood, "The Statistical Sign Test", JASA 41, 1946, do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from hardy.records import Record

__all__ = [
    "CellValues",
    "Coordinates",
    "Duel",
    "Pivot",
    "beside",
    "chosen",
    "coordinates",
    "duel",
    "markdown",
    "pivot",
    "sign_test",
    "spread",
]

HEADLINES = ("miou", "accuracy")
"""The default metrics; the records of a target have exactly one of them."""

Coordinates = tuple[tuple[str, str], ...]
"""The coordinates of a cell: sorted (axis, value name) pairs, with the stage as axis ``stage``."""

CellValues = dict[Coordinates, float]


@dataclass(frozen=True)
class Pivot:
    """A table to print: the titles of its columns (the first ``text_columns`` hold text), its rows and a note."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    note: str


@dataclass(frozen=True)
class Duel:
    """One value of an axis compared with another, over pairs of cells with the same values on all other axes.

    Attributes:
        won: the number of pairs in which the first is higher.
        lost: the number of pairs in which the first is lower.
        tied: the number of pairs in which both are equal.
        gain: the mean difference, first minus second; NaN without pairs.
        p: of the two-sided exact sign test.
    """

    won: int
    lost: int
    tied: int
    gain: float
    p: float


def chosen(records: Sequence[Record], target: str, metric: str | None = None) -> CellValues:
    """The number of ``target`` in every cell; the default ``metric`` is the mean IoU or the accuracy."""
    values: CellValues = {}
    for record in records:
        right = record.metric == metric if metric else record.metric in HEADLINES
        if record.target == target and right and record.value is not None:
            values[coordinates(record.notes.get("of", record.stage), record.notes.get("axes", {}))] = record.value
    return values


def coordinates(stage: str, axes: Mapping[str, str]) -> Coordinates:
    """The coordinates of a cell."""
    return tuple(sorted({**axes, "stage": stage}.items()))


def pivot(
    values: CellValues,
    cells: Sequence[Coordinates],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    percent: bool = True,
) -> Pivot:
    """Mean ± sample standard deviation over all axes that are neither in ``rows`` nor in ``columns``.

    With more than one column, a last column has the mean over the columns. This mean is computed for each cell that is
    measured in all columns, and then averaged. A cell without an axis has a dash there. With several stages, the stage
    is an axis.

    Args:
        values: the measured numbers.
        cells: all cells, measured or not, in order; if some cells of a number are not measured, it shows how many are.
        rows: the axes of the rows.
        columns: the axes of the columns.
        percent: show numbers in [0, 1] as percentages.
    """
    stages = dict.fromkeys(dict(where)["stage"] for where in cells)
    down = ["stage", *rows] if len(stages) > 1 and "stage" not in (*rows, *columns) else list(rows)
    across = _distinct(cells, columns)
    lines = []
    for row in _distinct(cells, down):
        here = [where for where in cells if _part(where, down) == row]
        texts = []
        for column in across:
            both = [where for where in here if _part(where, columns) == column]
            texts.append(spread([values[where] for where in both if where in values], len(both), percent=percent))
        if len(across) > 1:
            texts.append(spread(*_means(values, here, columns), percent=percent))
        lines.append((*row, *texts))
    names = [" ".join(column) or "value" for column in across] + ["mean"] * (len(across) > 1)
    rest = [
        name for name in dict.fromkeys(name for where in cells for name, _ in where) if name not in (*down, *columns)
    ]
    rest = [name for name in rest if name != "stage"]
    note = f"mean ± standard deviation over {', '.join(rest)}" if rest else ""
    return Pivot((*down, *names), tuple(lines), len(down), note)


def beside(table: Pivot, others: Mapping[str, Pivot]) -> Pivot:
    """``table`` with the columns of ``others`` appended, titled with their names; all tables have the same rows."""
    columns, rows = table.columns, table.rows
    for name, other in others.items():
        titles = other.columns[other.text_columns :]
        columns += tuple(name if title == "value" else f"{title} {name}" for title in titles)
        rows = tuple((*row, *more[other.text_columns :]) for row, more in zip(rows, other.rows, strict=True))
    return Pivot(columns, rows, table.text_columns, table.note)


def duel(values: CellValues, axis: str, first: str, second: str) -> Duel:
    """Compare two values of ``axis`` over all pairs of cells with the same values on every other axis."""
    sides: tuple[CellValues, CellValues] = ({}, {})
    for where, value in values.items():
        rest = tuple(pair for pair in where if pair[0] != axis)
        for side, name in zip(sides, (first, second), strict=True):
            if (axis, name) in where:
                side[rest] = value
    gains = [sides[0][rest] - sides[1][rest] for rest in sides[0] if rest in sides[1]]
    won, lost = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return Duel(won, lost, len(gains) - won - lost, fmean(gains) if gains else math.nan, sign_test(won, lost))


def sign_test(won: int, lost: int) -> float:
    """The two-sided exact p of the sign test, ``min(1, 2 P(X <= min(won, lost)))`` with X of Binomial(n, 1/2)."""
    count = won + lost
    tail = sum(math.comb(count, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / (1 << count))


def spread(numbers: Sequence[float], expected: int, *, percent: bool = True) -> str:
    """``mean ± standard deviation`` (n - 1) as text.

    A single number gives only the mean, no number a dash. If some are missing, their count follows, as in (2/3).
    Numbers that are not percentages have four digits, or no decimals if the mean is 10,000 or more.
    """
    if not numbers:
        return "–" if expected else ""
    moments = [fmean(numbers), *([stdev(numbers)] if len(numbers) > 1 else [])]
    lacking = f" ({len(numbers)}/{expected})" if len(numbers) < expected else ""
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


def _means(values: CellValues, here: Sequence[Coordinates], columns: Sequence[str]) -> tuple[list[float], int]:
    """The means over the columns for each combination of the other axes that has all columns, and the number of all
    combinations."""
    groups: dict[Coordinates, list[Coordinates]] = {}
    for where in here:
        groups.setdefault(tuple(pair for pair in where if pair[0] not in columns), []).append(where)
    complete = [group for group in groups.values() if all(where in values for where in group)]
    return [fmean(values[where] for where in group) for group in complete], len(groups)


def _part(where: Coordinates, axes: Sequence[str]) -> tuple[str, ...]:
    names = dict(where)
    return tuple(names.get(axis, "–") for axis in axes)


def _distinct(cells: Sequence[Coordinates], axes: Sequence[str]) -> list[tuple[str, ...]]:
    """The combinations of ``axes`` that occur, in order of first appearance."""
    return list(dict.fromkeys(_part(where, axes) for where in cells))
