"""``hardy report``: one self-contained page that says which network to ship, from the records of runs."""

from collections.abc import Sequence
from pathlib import Path

from hardy.commands.output.printing import say, warn
from hardy.report.page import build

__all__ = ["run"]


def run(paths: Sequence[Path], out: Path, *, budget: float | None = None, title: str = "Hardy report") -> Path:
    """Write the page of the runs at or below ``paths`` to ``out``, and say what it shows; returns its path.

    Raises:
        InputError: what `hardy.report.page.build.write` raises.
    """
    subject, torn = build.write(paths, out, budget=budget, title=title)
    for line in torn:
        warn(line)
    count = len(subject.networks)
    say(f"{out}: {count} network{'s' * (count != 1)}; open it in a browser, also without a connection")
    return out
