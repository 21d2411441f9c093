"""The error at the end where a domain is not in a table of scores."""

from pathlib import Path

from hardy.commands._words import adapt_words
from hardy.engine.evaluate import Table
from hardy.errors import InputError
from hardy.sections import Adapt

__all__ = ["refuse_unmeasured"]


def refuse_unmeasured(table: Table, folder: Path, adapt: Adapt | None = None) -> None:
    """Say by an error that ``table``, measured with ``adapt``, lacks domains, once everything else is done.

    Raises:
        InputError: naming them, the first one's reason, and what measures them.
    """
    if table.failed:
        names, reason = " ".join(table.failed), next(iter(table.failed.values()))
        raise InputError(
            f"{folder}: the network is there, but not measured on {names}: {reason}; once the data are right, run: "
            f"hardy evaluate {folder} {names}{adapt_words(adapt)}"
        )
