"""The progress of a stage: a bar with the remaining time on a terminal, lines in the log, curves, and trackers."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hardy import curves
from hardy.commands.output.printing import show_rows
from hardy.engine.fit import Log
from hardy.engine.run import Run, lines

__all__ = ["terminal"]


@contextmanager
def terminal(run: Run, stage: str, steps: int) -> Iterator[Log]:
    """See `hardy.engine.run.Progress`."""
    before, after = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[terms]"))
    columns = (before, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), after)
    console = Console(file=sys.stderr, highlight=False)
    shown = run.main and console.is_terminal
    if run.shown and run.main:
        show_rows(run.shown.title, run.shown.columns, run.shown.rows, console=console)
    with Progress(*columns, console=console, disable=not shown) as bar, lines(run, stage, steps) as write:
        task = bar.add_task(stage, total=steps or None, terms="")

        def log(step: int, values: Mapping[str, float]) -> None:
            bar.update(task, completed=step, terms="  ".join(f"{name} {value:.4g}" for name, value in values.items()))
            write(step, dict(values))
            if run.main:
                curves.append(run.folder, stage, step, values)
            run.tracking.log(stage, step, values)

        yield log
