"""The exception for wrong input, and the formatting of its one-line messages."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

__all__ = ["InputError", "check_size", "named", "nearest", "quoted", "shortened", "within", "worded"]

_MOST = 80
"""Characters of a quoted value that a message shows."""


class InputError(ValueError):
    """Wrong input from the user.

    The message is one line that names the file or key, the value and the fix. The command line prints only this line
    and exits with code 2. Every other exception is a bug of Hardy and keeps its traceback. Values in the message are
    `shortened`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def shortened(message: str) -> str:
    """``message`` with each long quoted text, list, mapping and word cut to 80 characters: its start and its end.

    Paths are not cut.
    """
    parts: list[str] = []
    position = 0
    for start, end in _values(message):
        if start >= position and end - start > _MOST:
            parts += [message[position:start], _cut(message[start:end])]
            position = end
    return re.sub(r"""[^\s/'"\[\]{}]{81,}""", lambda word: _cut(word.group()), "".join((*parts, message[position:])))


def _cut(text: str) -> str:
    return f"{text[: _MOST - 23]}...{text[-20:]}"


def _values(message: str) -> list[tuple[int, int]]:
    """Start and end of each quoted text, list and mapping in ``message``; outer values come before inner ones."""
    spans: list[tuple[int, int]] = []
    opened: list[tuple[str, int]] = []
    quote = ""
    for index, letter in enumerate(message):
        beside = message[index - 1 : index] if not quote else message[index + 1 : index + 2]
        if letter in "'\"" and letter == (quote or letter) and not beside.isalnum():
            if quote:
                spans.append((opened.pop()[1], index + 1))
            else:
                opened.append((letter, index))
            quote = "" if quote else letter
        elif not quote and letter in "[{":
            opened.append((letter, index))
        elif not quote and letter in "]}" and opened and opened[-1][0] == {"]": "[", "}": "{"}[letter]:
            spans.append((opened.pop()[1], index + 1))
    return sorted(spans)


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint ``; did you mean 'x'?`` for the known word closest to ``word``, or an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def quoted(value: object, most: int = 80) -> str:
    """``value`` as Python writes it, cut at ``most`` characters."""
    if isinstance(value, (str, bytes)):
        value = value[: most + 1]  # a long text is cut before it is formatted
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with thousands of digits, or lists nested too deep
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= most else f"{text[:most]}..."


def worded(where: str, problem: Mapping[str, Any]) -> str:
    """A problem that pydantic found at the key ``where``, if it has one: what, the value, and the right form of a size.

    It says list for tuple, as YAML does.
    """
    message = str(problem["msg"]).removeprefix("Value error, ").split(" or instance of")[0]
    message, value = message.replace("tuple", "list").replace("Tuple", "List"), problem["input"]
    if not where:
        return message
    got = "" if isinstance(value, dict) else f" (got {quoted(value)})"
    sides = re.fullmatch(r"(\d{1,9})[xX](\d{1,9})", value) if isinstance(value, str) else None
    fix = f"; write [{sides[1]}, {sides[2]}]" if sides and "list" in message else ""
    return f"{where}: {message[0].lower() + message[1:]}{got}{fix}"


def within(option: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise `InputError` for a value of ``option`` outside [least, most]; NaN is outside."""
    if not least <= value <= most:
        allowed = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise InputError(f"{option}: {value} is out of range; it must be {allowed}")


def check_size(option: str, size: Any, least: int) -> None:
    """Raise `InputError` for a ``size`` that is not (height, width), two whole numbers of at least ``least``."""
    pair = isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size)
    if not pair or min(size) < least:
        shown = tuple(size) if isinstance(size, list | tuple) else size
        raise InputError(f"{option} {quoted(shown)}: give (height, width), each at least {least}")


@contextmanager
def named(file: object) -> Iterator[None]:
    """Inside the block an `OSError` without a file name, such as that of a full disk, gets the name ``file``."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(file)
        raise
