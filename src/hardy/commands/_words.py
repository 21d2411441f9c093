"""What words of the command line mean: sizes, and options of data sets; and the line that an error becomes."""

import os
from typing import Any

import typer

from hardy import safe_yaml
from hardy.errors import InputError, quoted

__all__ = ["UsageError", "nested", "os_line", "size_of", "usage_line"]

# Typer carries its own copy of click since 0.29 and none before: its exceptions are reached through a public name.
UsageError: Any = typer.BadParameter.__mro__[1]


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) of ``HEIGHTxWIDTH``; None of None.

    Raises:
        InputError: for anything else.
    """
    if text is None:
        return None
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise InputError(f"size {quoted(text)} is not HEIGHTxWIDTH, such as 512x1024")
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
                f"data set option {quoted(text)} is not of the form name.option=value, such as streets.test=20"
            )
        options.setdefault(name, {})[option] = safe_yaml.value(value, f"data set option {quoted(text)}")
    return options


def usage_line(error: Any) -> str:
    """What is wrong with the words of a call, and where to read how it is called."""
    context = error.ctx
    command = context.command_path if context is not None else "hardy"
    return f"{error.format_message()} ({command} --help tells more)"


def os_line(error: OSError) -> str:
    """The file, and what the system says of it."""
    if error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno) if error.errno else error.strerror}"
