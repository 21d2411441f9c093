"""Files kept in one folder with a size limit, for several processes at a time; a full folder keeps no more files."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardy.errors import InputError
from hardy.files import replacing, write_text
from hardy.lock import lock_open_file

__all__ = ["KeptFiles"]

_log = logging.getLogger("hardy")

_TOTAL = "bytes"
"""The file with the number of bytes in the folder; if it is missing or damaged, they are counted again."""


class KeptFiles:
    """Files in ``folder``, with at most ``most`` bytes in total; each file is complete or absent.

    If it is full, the sub-folders other than ``version`` are deleted. If that is not enough, no more files are kept,
    with one message in the log.

    Args:
        folder: a folder in which nothing else writes; created with the first file.
        version: the sub-folder that is never deleted.
        most: the largest size of all files in bytes.
        what: the name of the files, for messages.
        instead: what happens to files that are not kept, for messages.
    """

    def __init__(self, folder: Path, version: Path, most: int, *, what: str, instead: str) -> None:
        self.folder, self.version, self.most = folder, version, most
        self._what, self._instead = what, instead
        self._reported = False

    def write(self, file: Path, data: bytes) -> None:
        """Keep ``data`` as ``file``, if there is room.

        Raises:
            InputError: when the folder cannot be written.
        """
        try:
            with self._alone():
                if self._reserved(len(data) - _size(file)):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with replacing(file) as waiting:
                        waiting.write_bytes(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"{self.folder}: a cache cannot be written there ({error.strerror}); give another folder"
                ) from None
            self._warn_once("the disk is full")

    def _reserved(self, more: int) -> bool:
        """Whether there is room for ``more`` bytes; if so, they are counted now, before they are written."""
        total = self._total()
        if total + more > self.most:
            for old in self.folder.iterdir():
                if old.is_dir() and old != self.version:
                    shutil.rmtree(old, ignore_errors=True)
            total = self._counted()
        if total + more > self.most:
            self._warn_once(f"it has reached its limit of {self.most:,} bytes")
            return False
        write_text(self.folder / _TOTAL, str(total + more))
        return True

    def _total(self) -> int:
        try:
            found = int((self.folder / _TOTAL).read_bytes()[:20])
            return found if found >= 0 else self._counted()
        except (OSError, ValueError):
            return self._counted()

    def _counted(self) -> int:
        return sum(_size(Path(place, name)) for place, _, names in os.walk(self.folder) for name in names)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside the block no other process writes to the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("ab") as file:
            lock_open_file(file.fileno())
            yield

    def _warn_once(self, why: str) -> None:
        if not self._reported:
            _log.warning("%s: no more %s are kept, because %s; %s", self.folder, self._what, why, self._instead)
        self._reported = True


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
