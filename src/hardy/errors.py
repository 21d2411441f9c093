"""The one exception that means "what you gave me cannot be used"."""

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

__all__ = ["InputError", "named", "nearest", "quoted", "shortened", "within"]

_MOST = 80
"""Characters of a quoted value that a message shows."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or key, the value found and the fix. The command line prints it
    alone and exits with code 2; every other exception is a defect of Hardy and keeps its traceback. Values in it are
    `shortened`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def shortened(message: str) -> str:
    """``message`` with each quoted text, list, mapping and word (no path) in it cut to 80 characters: start and end."""
    parts: list[str] = []
    place = 0
    for start, end in _values(message):
        if start >= place and end - start > _MOST:
            parts += [message[place:start], _cut(message[start:end])]
            place = end
    return re.sub(r"""[^\s/'"\[\]{}]{81,}""", lambda word: _cut(word.group()), "".join((*parts, message[place:])))


def _cut(text: str) -> str:
    return f"{text[: _MOST - 23]}...{text[-20:]}"


def _values(message: str) -> list[tuple[int, int]]:
    """Start and end of each quoted text, list and mapping in ``message``, the outer before the inner."""
    found: list[tuple[int, int]] = []
    opened: list[tuple[str, int]] = []
    quote = ""
    for place, letter in enumerate(message):
        beside = message[place - 1 : place] if not quote else message[place + 1 : place + 2]
        if letter in "'\"" and letter == (quote or letter) and not beside.isalnum():
            if quote:
                found.append((opened.pop()[1], place + 1))
            else:
                opened.append((letter, place))
            quote = "" if quote else letter
        elif not quote and letter in "[{":
            opened.append((letter, place))
        elif not quote and letter in "]}" and opened and opened[-1][0] == {"]": "[", "}": "{"}[letter]:
            found.append((opened.pop()[1], place + 1))
    return sorted(found)


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint ``; did you mean 'x'?`` for the known word closest to ``word``, or an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def quoted(value: object, most: int = 80) -> str:
    """``value`` as Python writes it, cut at ``most`` characters."""
    if isinstance(value, (str, bytes)):
        value = value[: most + 1]  # so that nothing endless is written out first
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists too deep in each other
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= most else f"{text[:most]}..."


def within(option: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise `InputError` for a value of ``option`` outside [least, most]; NaN is outside."""
    if not least <= value <= most:
        allowed = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise InputError(f"{option}: {value} is out of range; it must be {allowed}")


@contextmanager
def named(file: object) -> Iterator[None]:
    """Inside the block an `OSError` that names no file, such as that of a full disk, comes to name ``file``."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(file)
        raise
