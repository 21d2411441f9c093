"""The problems that the data doctor finds, each with its files and its fix."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["LEVELS", "Level", "Problem", "Problems"]

Level = Literal["mistake", "warning", "note"]
LEVELS: tuple[Level, ...] = ("mistake", "warning", "note")
"""``mistake``: training would stop or learn from wrong labels; ``warning``: scores may be misleading; ``note``: for
information."""

_KEPT = 20


@dataclass
class Problem:
    """One kind of problem in one place.

    Attributes:
        level: see `LEVELS`.
        kind: one word, such as ``unreadable`` or ``foreign``.
        where: a domain, or several.
        what: a sentence about the first case.
        fix: what to do.
        count: the number of files that have it.
        files: the first of these files.
        cases: the sentences about the first cases, if they differ.
    """

    level: Level
    kind: str
    where: str
    what: str
    fix: str
    count: int = 0
    files: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The attributes as plain values."""
        return {**vars(self), "files": list(self.files), "cases": list(self.cases)}


class Problems:
    """Problems grouped by kind and place, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Problem] = {}

    def add(self, level: Level, kind: str, where: str, what: str, fix: str, *files: str, group: str = "") -> None:
        """Add a case; cases of the same kind, place and ``group`` are one problem, described by the first."""
        one = self._found.setdefault((kind, where, group), Problem(level, kind, where, what, fix))
        one.count += max(1, len(files))
        one.files += files[: max(0, _KEPT - len(one.files))]
        if what not in one.cases and len(one.cases) < _KEPT:
            one.cases.append(what)

    def __iter__(self) -> Iterator[Problem]:
        """The problems, mistakes first."""
        return iter(sorted(self._found.values(), key=lambda one: LEVELS.index(one.level)))
