"""The error at the end of a command when a domain could not be measured."""

from pathlib import Path

from hardy.commands.input.words import adapt_words
from hardy.engine.evaluate import ScoreTable
from hardy.errors import InputError
from hardy.sections import Adapt

__all__ = ["refuse_unmeasured"]


def refuse_unmeasured(table: ScoreTable, folder: Path, adapt: Adapt | None = None) -> None:
    """Raise an error when domains are missing in ``table``, which was measured with ``adapt``.

    Raises:
        InputError: naming the domains, the first one's reason, and the command that measures them.
    """
    if table.failed:
        names, reason = " ".join(table.failed), next(iter(table.failed.values()))
        raise InputError(
            f"{folder}: the network is saved, but not measured on {names}: {reason}; when the data are correct, run: "
            f"hardy evaluate {folder} {names}{adapt_words(adapt)}"
        )
