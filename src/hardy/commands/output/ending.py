"""The end of a command: its exit code, and one line for an error."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from hardy.errors import InputError, shortened

__all__ = ["leave"]

# Since 0.29 Typer has its own copy of click, earlier it imports click: both exceptions have this public base class.
_UsageError: Any = typer.BadParameter.__mro__[1]


def leave(call: Callable[[], object], *, debug: bool = False) -> NoReturn:
    """Exit with the code that ``call`` returns. Bad input exits with 2, a stopped run with 128 + its signal.

    With ``debug`` the traceback of an error is printed before its line.
    """
    try:
        code = _traced(call) if debug else call()
    except _UsageError as error:
        _exit(_usage(error), 2)
    except (InputError, OSError) as error:
        _exit(_os_line(error) if isinstance(error, OSError) else str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        _exit("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        if _interrupted(error):
            _exit("interrupted", 128 + signal.SIGINT)
        number = getattr(error, "signal_number", None)
        if number is None:
            raise
        _exit(str(error), 128 + number)
    if code == 128 + signal.SIGINT:  # Typer turns KeyboardInterrupt into this code
        _exit("interrupted", code)
    sys.exit(code if isinstance(code, int) else 0)


def _traced(call: Callable[[], object]) -> object:
    try:
        return call()
    except Exception:
        traceback.print_exc()
        raise


def _exit(line: str, code: int) -> NoReturn:
    if code > 128:  # a second Ctrl-C while Python exits would print a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr.write(f"hardy: {shortened(' '.join(line.split()))}\n")
    sys.exit(code)


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C caused ``error``: if it comes during an import, the library may raise its own error from it."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def _usage(error: Any) -> str:
    context = error.ctx
    command = context.command_path if context is not None else "hardy"
    return f"{error.format_message()} (see {command} --help)"


def _os_line(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno) if error.errno else error.strerror}"
