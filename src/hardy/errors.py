"""The one exception that means "what you gave me cannot be used"."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["InputError", "nearest"]


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or key, the value found and the fix. The command line prints it
    alone and exits with code 2; every other exception is a defect of Hardy and keeps its traceback.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint ``; did you mean 'x'?`` for the known word closest to ``word``, or an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
