"""Tables that people read on the terminal."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from hardy.engine.evaluate import Table

__all__ = ["percent", "say", "show_rows", "show_table"]


def percent(value: float | None) -> str:
    """``value`` in [0, 1] as a percentage with one decimal, or a dash."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def say(line: str) -> None:
    """Print one line."""
    Console(highlight=False, soft_wrap=True).print(line, markup=False)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """Print rows of text under ``columns``, the first left-aligned and the rest right, with a line below."""
    table = RichTable(caption=note or None, caption_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has no width of its own
    console.print(title, style="italic", markup=False, soft_wrap=True)  # a table's own title wraps at its width
    console.print(table)


def show_table(title: str, table: Table, *, per_class: bool = False) -> None:
    """Print an evaluation: a row per domain, then the mean and the worst over the unseen ones; then the names of the
    domains that are not in them.

    Means over named classes have columns of their own where a data set lacks some classes, else rows of the table per
    class.
    """
    means = {row.domain: table.means(row) for row in table.rows}
    named = list(next(iter(means.values()), {}))
    metric = "accuracy %" if table.image_level else "mIoU %"
    apart = named if table.partial else []
    more = [f"{_written(name)} %" for name in apart] + ([] if table.image_level else ["pixel accuracy %"])
    columns = ["domain", "", "images", metric, *more]
    rows = []
    for row in table.rows:
        extra = [] if table.image_level else [percent(row.scores.pixel_accuracy)]
        shown = [percent(means[row.domain][name]) for name in apart]
        rows.append([row.domain, row.group, str(row.images), percent(table.headline(row)), *shown, *extra])
    for name, value in table.summary().items():
        pooled = "all of source-val" if table.image_level else "mean over source-val"
        text = {"intra": pooled, "unseen": "mean over unseen", "worst": "worst unseen"}.get(name, name)
        rows.append([text, "", "", percent(value), *[""] * len(more)])
    show_rows(title, columns, rows)
    for name in table.unscored:
        say(f"{name}: no score, for none of its labels is in the classes measured; it is in no mean and no worst")
    for name, reason in table.failed.items():
        say(f"{name}: NOT MEASURED: {reason}")
    if per_class and not table.image_level:
        names = ["class", *(row.domain for row in table.rows)]
        lines = [
            [name, *(percent(row.scores.iou[index]) for row in table.rows)] for index, name in enumerate(table.classes)
        ]
        lines += [[_written(name), *(percent(means[row.domain][name]) for row in table.rows)] for name in named]
        show_rows("IoU % per class (a dash: neither in labels nor in predictions)", names, lines)


def _written(mean: str) -> str:
    return mean.replace("miou", "mIoU")
