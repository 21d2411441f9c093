"""What people see of a study: how its cells stand, live on a terminal and line by line elsewhere, and its table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hardy.engine.ledger import Ledger, write
from hardy.engine.order import STATES, Order
from hardy.engine.study import Compare, Study, against, compared, label, listed
from hardy.report.pivot import Duel, Pivot, Place, Values, chosen, duel, markdown, pivot, place

__all__ = ["Board"]

SHOWN = 12
"""How many running cells a live board names."""


class Board:
    """How the cells of a study stand, and the table of what they measured.

    Args:
        study: the study.
        ledger: its folder.
        order: the states of its cells, read anew whenever something is shown.
    """

    def __init__(self, study: Study, ledger: Ledger, order: Order) -> None:
        self.study = study
        self.ledger = ledger
        self.order = order
        self.out = Console(highlight=False)
        self.screen = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._values: Values | None = None
        if not self.out.is_terminal:
            self.out.width = 160  # a file or a pipe has no width of its own

    @contextmanager
    def live(self) -> Iterator[None]:
        """On a terminal, keep the board on the screen while the block lasts."""
        if not self.screen.is_terminal:
            self._say(self._counts())
            yield
            return
        with Live(self._board(), console=self.screen, refresh_per_second=2, transient=True) as self._live:
            yield
        self._live = None

    def show(self) -> None:
        """Bring the live board up to date."""
        if self._live:
            self._live.update(self._board())

    def ended(self, cell: str, how: str, reason: str) -> None:
        """Say that a cell ended, where no live board shows it."""
        done, all_of_them = self.order.count("done"), len(self.order.states)
        line = f"{done}/{all_of_them} {how}: {cell}{f': {reason}' if how == 'failed' else ''}"
        self._values = None
        if not self._live:
            self._say(line)
        elif how == "failed":
            self._live.console.print(line, markup=False, soft_wrap=True)

    def plan(self) -> None:
        """Print every cell with its state, and the table of what is measured."""
        for name, state in self.order.states.items():
            self._say(f"{state:8} {name}")
        self.summary(keep=False)

    def summary(self, *, keep: bool = True) -> None:
        """Print table, comparisons and failures, and ``keep`` the table as ``table.md`` in the study's folder."""
        table, duels, title = self._pivot(), self._duels(), self._title()
        self.out.print(title, style="italic", markup=False, soft_wrap=True)
        self.out.print(_rich(table))
        for line in duels:
            self._say(line)
        for failure in self.ledger.failures():
            if failure.cell in self.order.states:
                self._say(f"failed: {failure.cell}: {failure.reason} (see {failure.log})")
        for name in self.order.named("skipped"):
            self._say(f"skipped: {name}: what it goes on from failed")
        self._say(self._counts())
        if keep:
            text = [title, "", *markdown(table), *(["", *(f"- {line}" for line in duels)] if duels else [])]
            write(self.ledger.folder / "table.md", "\n".join(text) + "\n")

    def _say(self, line: str) -> None:
        self.out.print(line, markup=False, soft_wrap=True)

    def _counts(self) -> str:
        counts = [f"{self.order.count(state)} {state}" for state in STATES if self.order.count(state)]
        return f"{self.ledger.folder}: {len(self.order.states)} cells: {', '.join(counts)}"

    def _title(self) -> str:
        shown = self.study.table
        metric = shown.metric or "mIoU or accuracy"
        return f"{self.ledger.study}: {metric}{' %' if _is_share(shown.metric) else ''}, {shown.value}"

    def _measured(self) -> Values:
        """The number that the table shows, of every cell that has it."""
        if self._values is None:
            everywhere = chosen(self.ledger.read(), self.study.table.value, self.study.table.metric)
            self._values = {where: everywhere[where] for where in self._places() if where in everywhere}
        return self._values

    def _places(self) -> list[Place]:
        return [place(cell.stage, cell.axes) for cell in map(self.ledger.cells.__getitem__, self.order.states)]

    def _pivot(self) -> Pivot:
        shown = self.study.table
        columns = listed(shown.columns)
        usual = [name for name, axis in self.study.grid.items() if axis.key != "run.seed" and name not in columns]
        rows = usual if shown.rows is None else listed(shown.rows)
        return pivot(self._measured(), self._places(), rows, columns, percent=_is_share(shown.metric))

    def _duels(self) -> list[str]:
        """A line for every comparison that is asked for."""
        return [line for one in compared(self.study.table) for line in self._compared(one)]

    def _compared(self, one: Compare) -> Iterator[str]:
        first, others = label(one.of), [label(other) for other in against(one)]
        places = [dict(where) for where in self._places()]
        every = dict.fromkeys(where[one.axis] for where in places if one.axis in where)
        groups = dict.fromkeys(
            tuple((axis, where[axis]) for axis in listed(one.by) if axis in where)
            for where in places if one.axis in where
        )  # fmt: skip
        for group in groups:
            mine = {where: value for where, value in self._measured().items() if set(group) <= set(where)}
            head = ", ".join(f"{axis} {text}" for axis, text in group)
            for other in others or [text for text in every if text != first]:
                found = duel(mine, one.axis, first, other)
                line = _line(first, other, found, percent=_is_share(self.study.table.metric))
                yield f"{head}: {line}" if head else line

    def _board(self) -> Group:
        running = self.order.named("running")
        lines = [Text(f"  {name}  {_last(self.ledger.place(name) / 'train.log')}", overflow="ellipsis", no_wrap=True)
                 for name in running[:SHOWN]]  # fmt: skip
        more = [Text(f"  and {len(running) - SHOWN} more")] if len(running) > SHOWN else []
        return Group(Text(self._counts()), *lines, *more, _rich(self._pivot()))


def _is_share(metric: str | None) -> bool:
    """Whether a metric lies in [0, 1] and is shown as a percentage."""
    return metric is None or metric in ("miou", "accuracy", "pixel_accuracy") or metric.startswith("iou/")


def _line(first: str, second: str, found: Duel, *, percent: bool) -> str:
    pairs = found.won + found.lost + found.tied
    if not pairs:
        return f"{first} against {second}: no pair is measured"
    gain = f"{100 * found.gain:+.1f} points" if percent else f"{found.gain:+.4g}"
    ties = f", {found.tied} equal" if found.tied else ""
    how = f"by {gain} on average (sign test p = {found.p:.2g})"
    return f"{first} above {second} in {found.won} of {pairs} pairs{ties}, {how}"


def _rich(table: Pivot) -> Table:
    """``table`` for the terminal: labels to the left, numbers to the right."""
    shown = Table(caption=table.note or None, caption_justify="left")
    for index, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if index < table.labels else "right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _last(log: Path) -> str:
    """The last line of a run's log without its time."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 400))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return lines[-1].split(" ", 2)[-1] if lines else ""
