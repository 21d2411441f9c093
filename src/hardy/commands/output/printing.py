"""Tables and lines on the terminal."""

import errno
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from hardy import records
from hardy.commands.output.as_json import collector, encoded
from hardy.engine.evaluate import ScoreTable
from hardy.networks.base import Network
from hardy.networks.building import lineage
from hardy.records import Record

__all__ = [
    "bar",
    "keep_records",
    "percent",
    "plain",
    "say",
    "say_lineage",
    "show_json",
    "show_rows",
    "show_table",
    "warn",
]


Item = TypeVar("Item")

SHOWN = 6
"""How many absent classes a line lists."""


def percent(value: float | None) -> str:
    """``value`` in [0, 1] as a percentage with one decimal, or a dash."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def plain(text: str) -> Text:
    """``text`` for rich without markup: brackets are printed unchanged, unprintable characters are escaped."""
    return Text("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text))


def say(line: str) -> None:
    """Print one line."""
    if (shown := collector()) is not None:
        shown.lines.append(line)
        return
    Console(highlight=False, soft_wrap=True).print(plain(line))


def warn(line: str) -> None:
    """Print one line on standard error: something was left out, but the command continues."""
    Console(file=sys.stderr, highlight=False, soft_wrap=True).print(plain(f"hardy: {line}"))


def bar(items: Iterable[Item], name: str, count: int | None = None) -> Iterable[Item]:
    """``items``, of which there are ``count`` if that is known, with a progress bar on a terminal."""
    screen = Console(stderr=True)
    return track(items, name, total=count, console=screen, transient=True, disable=not screen.is_terminal)


def say_lineage(name: str, network: Network) -> None:
    """Print a line for each training in which ``network``, shown as ``name``, used more than labelled images."""
    for line in lineage.lines(network.lineage):
        say(f"{name}: {line}")


def keep_records(folder: Path, lines: Sequence[Record]) -> None:
    """Append ``lines`` to the records of ``folder``; without permission to write, print a message instead."""
    try:
        records.append(folder / "records.jsonl", lines)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        console = Console(highlight=False, soft_wrap=True, stderr=True)
        console.print(f"{folder}: no permission to write; the numbers above are not in its records", markup=False)


def show_json(value: object) -> None:
    """Print ``value`` as one JSON object; NaN and infinity are null."""
    sys.stdout.write(encoded(value) + "\n")


def show_rows(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str = "",
    *,
    console: Console | None = None,
) -> None:
    """Print a table of text to standard output or ``console``, with ``note`` below it.

    Only its first column is left-aligned. On a narrow terminal, what does not fit is wrapped and nothing is cut off;
    the first column is wrapped only if it needs more than half of the width.
    """
    if console is None and (shown := collector()) is not None:
        shown.add(title, columns, rows, note)
        return
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has no width
    table = Table(caption=plain(note) if note else None, caption_justify="left")
    for index, column in enumerate(columns):
        whole = index == 0 and all(cell_len(row[0]) <= console.width // 2 for row in rows)
        table.add_column(plain(column), justify="left" if index == 0 else "right", no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    console.print(plain(title), style="italic", soft_wrap=True)  # rich would wrap the title at the table's width
    console.print(table)


def show_table(title: str, table: ScoreTable, *, per_class: bool = False) -> None:
    """Print an evaluation: a row per domain, the mean and the worst of the unseen domains, and the domains without a
    score.

    Each of the table's ``named`` classes has a column with its IoU. Means over named sets of classes are columns if a
    data set lacks some classes, else rows of the table per class.
    """
    means = {row.domain: table.means(row) for row in table.rows}
    named = list(next(iter(means.values()), {}))
    metric = "accuracy %" if table.image_level else "mIoU %"
    apart = named if table.partial else []
    more = [f"{name} IoU %" for name in table.named]
    more += [f"{_written(name)} %" for name in apart] + ([] if table.image_level else ["pixel accuracy %"])
    columns = ["domain", "", "images", metric, *more]
    rows = []
    for row in table.rows:
        extra = [] if table.image_level else [percent(row.scores.pixel_accuracy)]
        shown = [percent(table.score(row, name)) for name in table.named]
        shown += [percent(means[row.domain][name]) for name in apart]
        rows.append([row.domain, row.group, str(row.images), percent(table.headline(row)), *shown, *extra])
    of_classes = [table.summary(name) for name in table.named]
    for name, value in table.summary().items():
        pooled = "all of source-val" if table.image_level else "mean over source-val"
        text = {"intra": pooled, "unseen": "mean over unseen", "worst": "worst unseen"}.get(name, name)
        shown = [percent(found.get(name)) for found in of_classes]
        rows.append([text, "", "", percent(value), *shown, *[""] * (len(more) - len(shown))])
    if rows:
        show_rows(title, columns, rows)
    for line in (*_absent(table), *_left_out(table), *(table.guard.lines() if table.guard else ())):
        say(line)
    if per_class and not table.image_level:
        names = ["class", *(row.domain for row in table.rows)]
        lines = [
            [name, *(percent(row.scores.iou[index]) for row in table.rows)] for index, name in enumerate(table.classes)
        ]
        lines += [[_written(name), *(percent(means[row.domain][name]) for row in table.rows)] for name in named]
        show_rows("IoU % per class (a dash: neither in labels nor in predictions)", names, lines)


def _left_out(table: ScoreTable) -> list[str]:
    """A line for each domain without a score."""
    unscored = [
        f"{name}: no score, because none of its labels is in the measured classes; means and minimum leave it out"
        for name in table.unscored
    ]
    return [*unscored, *(f"{name}: NOT MEASURED: {reason}" for name, reason in table.failed.items())]


def _absent(table: ScoreTable) -> list[str]:
    """A line for each set of classes that is missing in the mIoU of some domains."""
    domains_by_absent: dict[tuple[str, ...], list[str]] = {}
    for row in [] if table.image_level or table.partial else [r for r in table.rows if r.domain not in table.unscored]:
        absent = tuple(name for name, iou in zip(table.classes, row.scores.iou, strict=True) if math.isnan(iou))
        domains_by_absent.setdefault(absent, []).append(row.domain)
    return [
        f"{', '.join(domains)}: the mIoU is over {len(table.classes) - len(absent)} of {len(table.classes)} classes; "
        f"neither labels nor predictions contain {', '.join(absent[:SHOWN])}"
        + (f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else "")
        for absent, domains in domains_by_absent.items()
        if absent
    ]


def _written(mean: str) -> str:
    return mean.replace("miou", "mIoU")
