"""The display of a study: the states of its cells, live on a terminal or line by line, and its table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from hardy.commands.output.as_json import collector
from hardy.commands.output.comparison import Compared, ComparisonTable, Reader
from hardy.commands.output.printing import plain
from hardy.commands.output.summary import Summary
from hardy.files import write_text
from hardy.report.pivot import Coordinates, Pivot, coordinates
from hardy.studies.ledger import Ledger
from hardy.studies.order import STATES, Order
from hardy.studies.study import Study

__all__ = ["Board"]

SHOWN = 12
"""How many running cells a live board shows."""


class Board:
    """The states of the cells of a study, and the table of their measurements.

    Args:
        study: the study.
        ledger: its folder.
        order: the states of its cells; the board reads them whenever it shows something.
        counts: reads the per-image counts of a cell, for the study's comparison.
    """

    def __init__(self, study: Study, ledger: Ledger, order: Order, counts: Reader) -> None:
        self.study = study
        self.ledger = ledger
        self.order = order
        self.counts = counts
        self.out = Console(highlight=False)
        self.screen = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._latest: Summary | None = None
        if not self.out.is_terminal:
            self.out.width = 160  # a file or a pipe has no width

    @contextmanager
    def live(self) -> Iterator[None]:
        """On a terminal, show the live board inside the block."""
        if not self.screen.is_terminal:
            self._say(self._counts())
            yield
            return
        with Live(self._board(), console=self.screen, refresh_per_second=2, transient=True) as self._live:
            yield
        self._live = None

    def show(self) -> None:
        """Update the live board."""
        if self._live:
            self._live.update(self._board())

    def ended(self, cell: str, how: str, reason: str) -> None:
        """Print that a cell ended; with a live board only failures are printed."""
        done, all_of_them = self.order.count("done"), len(self.order.states)
        line = f"{done}/{all_of_them} {how}: {cell}{f': {reason}' if how == 'failed' else ''}"
        self._latest = None
        if not self._live:
            self._say(line)
        elif how == "failed":
            self._live.console.print(plain(line), soft_wrap=True)

    def show_cells(self) -> None:
        """Print every cell with its state, and the table of the measurements."""
        for name, state in self.order.states.items():
            self._say(f"{state:8} {name}")
        self.summary(keep=False)

    def summary(self, *, keep: bool = True) -> None:
        """Print table, comparisons and failures; with ``keep`` also write ``table.md`` in the study's folder."""
        summary = self._summary()
        self._say_pivot(summary.title, summary.table)
        for line in summary.duels:
            self._say(line)
        compared = self._compared()
        for one in compared.tables if compared else ():
            self._say_table(one)
        for failure in self.ledger.failures():
            if failure.cell in self.order.states:
                self._say(f"failed: {failure.cell}: {failure.reason} (see {failure.log})")
        for name in self.order.named("skipped"):
            self._say(f"skipped: {name}: the cell that it continues from failed")
        self._say(self._counts())
        if keep:
            lines = [*summary.markdown(), *(compared.markdown() if compared else [])]
            write_text(self.ledger.folder / "table.md", "\n".join(lines) + "\n")

    def _say_table(self, one: ComparisonTable) -> None:
        self._say_pivot(one.title, one.table, wide=True)
        for note in one.notes:
            self._say(f"- {note}")

    def _say_pivot(self, title: str, table: Pivot, *, wide: bool = False) -> None:
        if (shown := collector()) is not None:
            shown.add(title, table.columns, table.rows, table.note)
            return
        self.out.print(plain(title), style="italic", soft_wrap=True)
        self.out.print(_rich(table, wide=wide))

    def _say(self, line: str) -> None:
        if (shown := collector()) is not None:
            shown.lines.append(line)
        else:
            self.out.print(plain(line), soft_wrap=True)

    def _counts(self) -> str:
        counts = [f"{self.order.count(state)} {state}" for state in STATES if self.order.count(state)]
        return f"{self.ledger.folder}: {len(self.order.states)} cells: {', '.join(counts)}"

    def _summary(self) -> Summary:
        """The measurements of the cells so far."""
        if self._latest is None:
            self._latest = Summary(self.study, self.ledger.study, self._cells(), self.ledger.read())
        return self._latest

    def _compared(self) -> Compared | None:
        """The comparison of the study, if it has one."""
        if self.study.comparison is None:
            return None
        return Compared(self.study, self.ledger.study, self._cells(), self.ledger.read(), self.counts)

    def _cells(self) -> list[Coordinates]:
        cells = map(self.ledger.cells.__getitem__, self.order.states)
        return [coordinates(cell.stage, cell.axes) for cell in cells]

    def _board(self) -> Group:
        running = self.order.named("running")
        lines = [
            Text(f"  {name}  {_last(self.ledger.run_folder(name) / 'train.log')}", overflow="ellipsis", no_wrap=True)
            for name in running[:SHOWN]
        ]
        more = [Text(f"  and {len(running) - SHOWN} more")] if len(running) > SHOWN else []
        return Group(Text(self._counts()), *lines, *more, _rich(self._summary().table))


def _rich(table: Pivot, *, wide: bool = False) -> RichTable:
    """``table`` for the terminal: text aligned left, numbers aligned right.

    In a ``wide`` table a cell may take several lines, so that no text is cut.
    """
    shown = RichTable(caption=plain(table.note) if table.note else None, caption_justify="left")
    for index, name in enumerate(table.columns):
        side: Literal["left", "right"] = "left" if index < table.text_columns else "right"
        shown.add_column(plain(name), justify=side, no_wrap=not wide, overflow="fold" if wide else "ellipsis")
    for row in table.rows:
        shown.add_row(*map(plain, row))
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
