"""The lock of a folder, in which one process at a time may work.

It is a POSIX record lock (fcntl) on the file ``.lock`` in the folder. The system releases it when its process ends for
whatever reason, forked processes do not inherit it, and it works on network file systems. The existence of the file
means nothing: a file that a killed process left does not block others.
"""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from hardy.errors import InputError, named

__all__ = ["NAME", "Lock"]

NAME = ".lock"
"""The name of the lock file."""

_held: set[tuple[int, str]] = set()
"""(process, file) of every lock of this process: the system refuses other processes, this set refuses the same one."""


class Lock:
    """Locks ``folder`` inside a ``with`` block, or from `acquire` to `release`; the folder is made if it is missing.

    Args:
        folder: the folder to lock.
        who: what else may have locked it, for the message.
        advice: what to do then, for the message.
    """

    def __init__(
        self, folder: Path, *, who: str = "hardy process", advice: str = "wait for it, or give another folder"
    ) -> None:
        self.folder = folder
        self.who = who
        self.advice = advice
        self._file = folder.absolute() / NAME
        self._handle: int | None = None

    def acquire(self) -> Self:
        """Lock the folder.

        Raises:
            InputError: when another process, or another part of this one, has locked it.
            OSError: when the folder cannot be made or written.
        """
        key = (os.getpid(), os.path.realpath(self._file))
        if key in _held:  # opening and closing the file again would release the lock
            self._refuse("this process itself")
        with named(self._file):
            while self._handle is None:
                self._try()
        _held.add(key)
        return self

    def _try(self) -> None:
        """Lock the file, unless it was removed between opening and locking."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the folder was removed meanwhile
            return
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(handle)
            named_file = os.stat(self._file)
            if (mine.st_dev, mine.st_ino) == (named_file.st_dev, named_file.st_ino):
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
                self._handle = handle
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            self._refuse(f"process {os.read(handle, 20).decode('ascii', 'replace').strip() or '?'}")
        finally:
            if self._handle is None:
                os.close(handle)

    def _refuse(self, holder: str) -> None:
        raise InputError(f"{self.folder}: another {self.who} works in this folder ({holder}); {self.advice}") from None

    def release(self) -> None:
        """Release the lock and remove its file."""
        if self._handle is None:
            return
        self._file.unlink(missing_ok=True)  # before unlocking: a waiting process then checks the name again
        os.close(self._handle)
        self._handle = None
        _held.discard((os.getpid(), os.path.realpath(self._file)))

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
