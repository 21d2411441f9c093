"""``--json``: the records, tables and lines of a command, as one JSON object on standard output."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any

from hardy import records

__all__ = ["Shown", "as_json", "collector", "encoded"]


@dataclass
class Shown:
    """The output of a command.

    Attributes:
        tables: title, columns, rows and note of each table; numbers in cells are JSON numbers, a dash is null.
        lines: the other lines.
    """

    tables: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def add(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> None:
        """Add a table."""
        cells = [[_cell(text) for text in row] for row in rows]
        self.tables.append({"title": title, "columns": list(columns), "rows": cells, "note": note})


_shown: ContextVar[Shown | None] = ContextVar("shown", default=None)


def collector() -> Shown | None:
    """The object that collects tables and lines; None if they are printed."""
    return _shown.get()


def as_json(call: Callable[[], object]) -> tuple[object, str]:
    """The return value of ``call``, and its records, tables and lines as JSON; its other output is dropped."""
    with _collecting() as shown, records.heard() as found, redirect_stdout(StringIO()):
        code = call()
    values = {"records": [asdict(record) for record in found], "tables": shown.tables, "lines": shown.lines}
    return code, encoded(values)


def encoded(value: object) -> str:
    """``value`` as JSON text; NaN and infinity are null, and objects that JSON does not have are their text."""
    return json.dumps(records.plain(value), indent=1, default=str)


@contextmanager
def _collecting() -> Iterator[Shown]:
    token = _shown.set(made := Shown())
    try:
        yield made
    finally:
        _shown.reset(token)


def _cell(text: str) -> object:
    try:
        return None if text in ("", "–", "nan") else json.loads(text) if text[0] in "-0123456789" else text
    except ValueError:
        return text
