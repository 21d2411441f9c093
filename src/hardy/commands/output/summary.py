"""The table and the comparisons of a study, from the coordinates of its cells and their records."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from hardy.records import Record
from hardy.report.pivot import CellValues, Coordinates, Duel, Pivot, beside, chosen, duel, markdown, pivot
from hardy.studies.study import Compare, Study, against, compared, listed, value_name

__all__ = ["Summary"]


class Summary:
    """The measurements of the cells of a study.

    Args:
        study: the study.
        name: its name.
        cells: the coordinates of the cells to show, measured or not, in order.
        records: the records of these and other cells.
    """

    def __init__(self, study: Study, name: str, cells: Sequence[Coordinates], records: Sequence[Record]) -> None:
        self._show, self._grid, self._name = study.table, study.grid, name
        self._cells = cells
        self._values = self._chosen(records, self._show.metric)
        self._beside = {metric: self._chosen(records, metric) for metric in listed(self._show.beside)}

    @property
    def title(self) -> str:
        """One line: the study, the metric, and the value that is shown, such as ``unseen``."""
        metric = self._show.metric or "mIoU or accuracy"
        return f"{self._name}: {metric}{' %' if self._percent else ''}, {self._show.value}"

    @cached_property
    def table(self) -> Pivot:
        """The table of the study, as its section ``table`` describes it."""
        columns = listed(self._show.columns)
        usual = [name for name, axis in self._grid.items() if axis.key != "run.seed" and name not in columns]
        rows = usual if self._show.rows is None else listed(self._show.rows)
        others = {
            f"{metric}{' %' if _percent(metric) else ''}": pivot(
                values, self._cells, rows, columns, percent=_percent(metric)
            )
            for metric, values in self._beside.items()
        }
        return beside(pivot(self._values, self._cells, rows, columns, percent=self._percent), others)

    @cached_property
    def duels(self) -> list[str]:
        """A line for every comparison in the study."""
        return [line for one in compared(self._show) for line in self._compared(one)]

    def markdown(self) -> list[str]:
        """The lines of title, table and comparisons."""
        duels = [f"- {line}" for line in self.duels]
        return [self.title, "", *markdown(self.table), *(["", *duels] if duels else [])]

    @property
    def _percent(self) -> bool:
        return _percent(self._show.metric)

    def _chosen(self, records: Sequence[Record], metric: str | None) -> CellValues:
        """The number to show for each cell."""
        everywhere = chosen(records, self._show.value, metric)
        return {where: everywhere[where] for where in self._cells if where in everywhere}

    def _compared(self, one: Compare) -> Iterator[str]:
        first, others = value_name(one.of), [value_name(other) for other in against(one)]
        places = [dict(cell) for cell in self._cells]
        every = dict.fromkeys(where[one.axis] for where in places if one.axis in where)
        groups = dict.fromkeys(
            tuple((axis, where[axis]) for axis in listed(one.by) if axis in where)
            for where in places
            if one.axis in where
        )
        for group in groups:
            mine = {where: value for where, value in self._values.items() if set(group) <= set(where)}
            head = ", ".join(f"{axis} {text}" for axis, text in group)
            for other in others or [text for text in every if text != first]:
                line = _line(first, other, duel(mine, one.axis, first, other), percent=self._percent)
                yield f"{head}: {line}" if head else line


def _percent(metric: str | None) -> bool:
    """Whether ``metric`` is in [0, 1] and is shown as a percentage."""
    return metric is None or metric in ("miou", "accuracy", "pixel_accuracy") or metric.startswith("iou/")


def _line(first: str, second: str, found: Duel, *, percent: bool) -> str:
    pairs = found.won + found.lost + found.tied
    if not pairs:
        return f"{first} against {second}: no pair is measured"
    gain = f"{100 * found.gain:+.1f} points" if percent else f"{found.gain:+.4g}"
    ties = f", {found.tied} equal" if found.tied else ""
    how = f"by {gain} on average (sign test p = {found.p:.2g})"
    return f"{first} above {second} in {found.won} of {pairs} pairs{ties}, {how}"
