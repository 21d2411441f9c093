"""HTML from values: escaped text, tables that sort and filter, and choices between panels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Cell", "number", "panels", "percent", "section", "table"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        html: its content, already escaped.
        sort: the number to sort by; None to sort by the text.
        shade: the strength of its background tint, 0 to 1; None for no tint.
        head: True for the title of a row.
    """

    html: str
    sort: float | None = None
    shade: float | None = None
    head: bool = False

    def render(self) -> str:
        """The HTML element."""
        sort = "" if self.sort is None else f' data-sort="{self.sort:.6g}"'
        shade = "" if self.shade is None else f' style="--shade:{self.shade:.3f}" class="shade"'
        return f'<th scope="row"{sort}>{self.html}</th>' if self.head else f"<td{sort}{shade}>{self.html}</td>"


def percent(value: float | None, *, signed: bool = False) -> Cell:
    """A share in [0, 1] as a percentage with one decimal, or a dash."""
    if value is None:
        return Cell("–")
    return Cell(f"{100 * value:{'+' if signed else ''}z.1f}".replace("-", "−"), value)


def number(value: float | None, form: str = ",.3g") -> Cell:
    """A number, or a dash."""
    return Cell("–") if value is None else Cell(f"{value:{form}}".replace("-", "−"), value)


def table(name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, filtered: bool = False) -> str:
    """A table with buttons that sort by a column, inside a region that scrolls.

    Args:
        name: its title; the caption for screen readers.
        columns: titles; a column with an empty title cannot be sorted by.
        rows: of cells.
        filtered: add a search field that filters the rows.
    """
    heads = "".join(
        f'<th scope="col"><button type="button">{escape(one)}<i aria-hidden="true"></i></button></th>'
        if one
        else '<th scope="col"></th>'
        for one in columns
    )
    body = "\n".join(f"<tr>{''.join(cell.render() for cell in row)}</tr>" for row in rows)
    search = (
        '<p class="filter"><label>Filter <input type="search" placeholder="a word, or several"></label> '
        '<output aria-live="polite"></output></p>'
        if filtered
        else ""
    )
    return (
        f'<div class="table">{search}<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table class="sorts"><caption class="hidden">{escape(name)}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div></div>"
    )


def panels(label: str, choices: Sequence[tuple[str, str]]) -> str:
    """Panels of which the selected one is shown; a single panel has no selection field.

    Args:
        label: of the selection field.
        choices: (title, HTML) of each panel; the first is shown first.
    """
    if len(choices) == 1:
        return choices[0][1]
    options = "".join(f"<option>{escape(title)}</option>" for title, _ in choices)
    bodies = "".join(
        f'<div class="panel" aria-label="{escape(title)}" role="group"{" hidden" * (place > 0)}>{body}</div>'
        for place, (title, body) in enumerate(choices)
    )
    return f'<div class="panels"><p><label>{escape(label)} <select>{options}</select></label></p>{bodies}</div>'


def section(name: str, title: str, note: str, body: str) -> str:
    """A section of the page with its heading and a line of explanation, which is HTML."""
    explained = f'<p class="note">{note}</p>' if note else ""
    heading = f'<h2 id="{name}-h">{escape(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-h">{heading}{explained}{body}</section>'
