"""The progress of a stage: a bar with the remaining time on a terminal, lines in the log, and trackers."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hardy import curves
from hardy.commands.output.printing import show_rows
from hardy.engine.fit import Log
from hardy.engine.run import Run, lines
from hardy.errors import InputError, nearest

__all__ = ["terminal"]


@contextmanager
def terminal(run: Run, stage: str, steps: int) -> Iterator[Log]:
    """See `hardy.engine.run.Progress`.

    Raises:
        InputError: for a tracker that is not installed.
    """
    trackers = _trackers(run.recipe.run.trackers, run.folder)
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
            for tracker in trackers:
                tracker.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

        yield log
    for tracker in trackers:
        tracker.finish()


def _trackers(names: Sequence[str], folder: Path) -> list[GeneralTracker]:
    """Started trackers by name, such as ``tensorboard``, that write into ``folder``."""
    usable = [str(tracker.value) for tracker in get_available_trackers()]
    started = []
    for name in names:
        if name not in usable:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            raise InputError(
                f"run.trackers: {name!r} is not installed or not known{nearest(name, known)}; known are "
                f"{', '.join(known)}; installed here: {', '.join(usable) or 'none'}"
            )
        kind: Any = LOGGER_TYPE_TO_CLASS[name]
        tracker = kind("hardy", folder) if kind.requires_logging_directory else kind("hardy")
        tracker.start()
        started.append(tracker)
    return started
