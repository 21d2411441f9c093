"""Parse words of the command line: sizes, options of data sets, and how a network adapts."""

import json
import shlex
from collections.abc import Sequence

from hardy import safe_yaml
from hardy.errors import InputError, quoted
from hardy.files import expanded
from hardy.ranges import MOST_PIXELS
from hardy.sections import Adapt

__all__ = ["adapt_apart", "adapt_words", "at_home", "nested", "size_of", "stream_apart"]


def at_home(words: Sequence[str]) -> list[str]:
    """``words`` with a leading ``~`` replaced by the home folder; shells do not replace it in ``--to=~/x``."""
    return [_at_home(word) for word in words]


def _at_home(word: str) -> str:
    option, sign, path = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{sign}{expanded(path)}" if path.startswith("~") and "=" not in path else word


def adapt_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The domains among ``words``, and the words for the adaptation, such as ``adapt.name=source``."""
    adapting = [word for word in words if "=" in word and word.partition("=")[0].partition(".")[0] == "adapt"]
    return [word for word in words if word not in adapting], adapting


def stream_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other ``words``, and the words of a stream: options such as ``stream.kind=mixed``, and recipes of streams."""
    streaming = [
        word
        for word in words
        if ("=" in word and word.partition("=")[0].partition(".")[0] == "stream")
        or ("=" not in word and word.endswith((".yaml", ".yml")))
    ]
    return [word for word in words if word not in streaming], streaming


def adapt_words(adapt: Adapt | None) -> str:
    """The words for ``hardy evaluate`` that give the section ``adapt``, each after a space; empty without ``adapt``."""
    values = adapt.model_dump(mode="json") if adapt else {}
    texts = (f"adapt.{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items())
    return "".join(f" {shlex.quote(text)}" for text in texts)


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) of ``HEIGHTxWIDTH``; None for None.

    Raises:
        InputError: for anything else.
    """
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and height.strip("0") and width.strip("0")):
        raise InputError(f"size {quoted(text)} is not HEIGHTxWIDTH, such as 512x1024")
    if len(height) > 9 or len(width) > 9 or int(height) * int(width) > MOST_PIXELS:
        raise InputError(f"size {quoted(text)} has more than {MOST_PIXELS:,} pixels; give a smaller one")
    return int(height), int(width)


def nested(texts: list[str] | None) -> dict[str, dict[str, object]]:
    """``{"streets": {"test": 20}}`` of ``["streets.test=20"]``.

    Raises:
        InputError: for a text that is not ``name.option=value``, or a value that is not YAML.
    """
    options: dict[str, dict[str, object]] = {}
    for text in texts or ():
        path, sign, value = text.partition("=")
        name, dot, option = path.partition(".")
        if not (sign and dot):
            raise InputError(
                f"data set option {quoted(text)} does not have the form name.option=value, such as streets.test=20"
            )
        options.setdefault(name, {})[option] = safe_yaml.value(value, f"data set option {quoted(text)}")
    return options
