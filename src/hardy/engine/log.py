"""The log file of a run; an error in writing it stops the run."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardy.errors import InputError, named

__all__ = ["LogFile", "logged"]

_log = logging.getLogger("hardy")


class LogFile(logging.FileHandler):
    """A log file that raises when it cannot be written; Python's own would print a traceback for every line.

    Raises:
        InputError: when the path exists and is not a file.
    """

    def __init__(self, file: Path) -> None:
        if file.exists() and not file.is_file():  # opening a pipe blocks until it has a reader
            raise InputError(f"{file}: is a pipe or a device, not a file; give another run.folder")
        super().__init__(file)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise the error again, naming the file."""
        error = sys.exc_info()[1]
        assert error is not None, "logging calls this while it handles an exception"
        with named(self.baseFilename):
            raise error

    def close(self) -> None:
        """See `logging.FileHandler.close`."""
        with named(self.baseFilename):
            super().close()


@contextmanager
def logged(folder: Path, *, main: bool) -> Iterator[None]:
    """Inside the block messages are logged to ``train.log`` in ``folder``, and warnings also to the terminal.

    Only the ``main`` process of several does so.

    Raises:
        InputError: when the file cannot be written.
    """
    handlers: list[logging.Handler] = [LogFile(folder / "train.log")] if main else []
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    if main:
        handlers.append(logging.StreamHandler())
        handlers[-1].setLevel(logging.WARNING)
    for handler in handlers:
        _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            _log.removeHandler(handler)
            handler.close()
