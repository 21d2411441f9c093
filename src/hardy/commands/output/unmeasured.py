"""The error at the end of a command if a domain could not be measured."""

import shlex
from pathlib import Path

from hardy.commands.input.words import adapt_words
from hardy.engine.evaluate import ScoreTable
from hardy.errors import InputError
from hardy.sections import Adapt

__all__ = ["refuse_unmeasured"]


def refuse_unmeasured(table: ScoreTable, folder: Path, adapt: Adapt | None = None) -> None:
    """Raise an error if ``table``, measured with ``adapt``, has domains that could not be measured.

    Raises:
        InputError: with the domains, the reason of the first, and the command that measures them.
    """
    if table.failed:
        names, reason = " ".join(table.failed), next(iter(table.failed.values()))
        raise InputError(
            f"{folder}: the network is saved, but not measured on {names}: {reason}; when the data are correct, run: "
            f"hardy evaluate {shlex.quote(str(folder))} {names}{adapt_words(adapt)}"
        )
