"""The log of a run: a line that cannot be written stops the run."""

import logging
import sys
from pathlib import Path

from hardy.errors import InputError, named

__all__ = ["LogFile"]


class LogFile(logging.FileHandler):
    """A log file that stops the run when its disk is full, where logging would print a traceback a line.

    Raises:
        InputError: for what is there and is no file.
    """

    def __init__(self, file: Path) -> None:
        if file.exists() and not file.is_file():  # to open a pipe would wait for its reader
            raise InputError(f"{file}: is a pipe or a device, not a file; give another run.folder")
        super().__init__(file)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise the error again, naming the file."""
        error = sys.exc_info()[1]
        assert error is not None, "logging calls this where it caught something"
        with named(self.baseFilename):
            raise error

    def close(self) -> None:
        """See `logging.FileHandler.close`."""
        with named(self.baseFilename):
            super().close()
