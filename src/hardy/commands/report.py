"""``hardy report``: write one self-contained page from the records of runs; it recommends a network to ship."""

from collections.abc import Sequence
from pathlib import Path

from hardy.commands.output.printing import say, warn
from hardy.report.page import build

__all__ = ["run"]


def run(paths: Sequence[Path], out: Path, *, budget: float | None = None, title: str = "Hardy report") -> Path:
    """Write the page of the runs at or below ``paths`` to ``out``, print a summary line, and return the page's path.

    Raises:
        InputError: as `hardy.report.page.build.write`.
    """
    subject, torn = build.write(paths, out, budget=budget, title=title)
    for line in torn:
        warn(line)
    if busy := subject.busy():
        warn(f"{busy[0].lower()}{busy[1:]}")
    count = len(subject.networks)
    say(f"{out}: {count} network{'s' * (count != 1)}; open it in a browser; it needs no connection")
    return out
