"""Tables that people read on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from hardy.engine.evaluate import Table

__all__ = ["percent", "say", "show_rows", "show_table"]


def percent(value: float | None) -> str:
    """``value`` in [0, 1] as a percentage with one decimal, or a dash."""
    return "–" if value is None or value != value else f"{100 * value:.1f}"  # noqa: PLR0124 - NaN


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
    """Print an evaluation: a row per domain, then the mean and the worst over the unseen ones."""
    metric = "accuracy %" if table.image_level else "mIoU %"
    columns = ["domain", "", "images", metric, *([] if table.image_level else ["pixel accuracy %"])]
    rows = []
    for row in table.rows:
        extra = [] if table.image_level else [percent(row.scores.pixel_accuracy)]
        rows.append([row.domain, row.group, str(row.images), percent(table.headline(row)), *extra])
    for name, value in table.summary().items():
        text = {"intra": "mean over source-val", "unseen": "mean over unseen", "worst": "worst unseen"}.get(name, name)
        rows.append([text, "", "", percent(value), *([] if table.image_level else [""])])
    show_rows(title, columns, rows)
    if per_class and not table.image_level:
        names = ["class", *(row.domain for row in table.rows)]
        lines = [
            [name, *(percent(row.scores.iou[index]) for row in table.rows)] for index, name in enumerate(table.classes)
        ]
        show_rows("IoU % per class (a dash: neither in labels nor in predictions)", names, lines)
