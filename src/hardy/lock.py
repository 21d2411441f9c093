"""The lock of a folder, in which only one process at a time may work, and the lock of an open file during a write.

The library filelock uses the locks of the system (``flock`` on POSIX systems, ``LockFileEx`` on Windows) on the file
``.lock`` in the folder. The system releases the lock whenever its process ends, and a forked process does not keep it.
The existence of the file has no meaning: a file that a killed process left does not block others.
"""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hardy.errors import InputError, named

__all__ = ["NAME", "Lock", "lock_open_file"]

NAME = ".lock"
"""The name of the lock file."""

_held: "set[Lock]" = set()
"""The locks of this process, so that a lock without other references is held until the process ends."""


class Lock:
    """Locks ``folder`` inside a ``with`` block, or from `acquire` to `release`; creates the folder if it is missing.

    Args:
        folder: the folder to lock.
        who: the kind of process that may have locked it, for the message.
        advice: what the user can do then, for the message.
    """

    def __init__(
        self, folder: Path, *, who: str = "hardy process", advice: str = "wait for it, or give another folder"
    ) -> None:
        from filelock import FileLock

        self.folder = folder
        self.who = who
        self.advice = advice
        self._file = folder.absolute() / NAME
        self._lock = FileLock(self._file, blocking=False, thread_local=False, on_acquired=_sign)

    def acquire(self) -> Self:
        """Lock the folder.

        Raises:
            InputError: when another process, or another part of this one, has locked it.
            OSError: when the folder cannot be made or written.
        """
        if self._lock.is_locked:
            self._refuse(str(os.getpid()))
        with named(self._file):
            while not self._lock.is_locked:
                self._try()
        _held.add(self)
        return self

    def _try(self) -> None:
        """Lock the file, unless it or the folder was removed between opening and locking."""
        from filelock import Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except FileNotFoundError:  # the folder was removed in the meantime
            return
        except Timeout:
            try:
                holder = self._file.read_bytes()[:20].decode("ascii", "replace").strip()
            except FileNotFoundError:  # the other process has removed it in the meantime
                return
            except PermissionError:  # on Windows no other process can read it
                holder = ""
            self._refuse(holder)

    def _refuse(self, holder: str) -> None:
        who = "this process itself" if holder == str(os.getpid()) else f"process {holder or '?'}"
        raise InputError(f"{self.folder}: another {self.who} works in this folder ({who}); {self.advice}") from None

    def release(self) -> None:
        """Release the lock and remove its file."""
        if not self._lock.is_locked:
            return
        with suppress(PermissionError):  # on Windows, where filelock removes it afterwards
            self._file.unlink(missing_ok=True)  # before unlocking: a waiting process then checks the name again
        self._lock.release()
        _held.discard(self)

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _sign(handle: int) -> None:
    """Write the number of this process into the locked file."""
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())


def lock_open_file(handle: int) -> None:
    """Wait until no other process has locked the open file ``handle``, and lock it; closing it releases the lock."""
    from filelock import lock_descriptor

    lock_descriptor(handle, poll_interval=0.005)
