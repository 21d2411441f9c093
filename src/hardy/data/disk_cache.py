"""Labelled pictures kept on disk, within a number of bytes, so that what is slow to draw is drawn once.

A picture is found under the settings that it was drawn with and its own name. Each file holds a checksum: one that is
torn or damaged counts as absent. Several processes may read and write one cache at a time.
"""

import errno
import fcntl
import logging
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np

from hardy.errors import InputError
from hardy.files import temporary

__all__ = ["OWN", "DiskCache"]

_log = logging.getLogger("hardy")

Picture = tuple[np.ndarray, np.ndarray]
"""An image (H, W, 3) uint8 and its mask (H, W) uint8."""

OWN = "hardy-pictures"
"""The sub-folder of a cache, in which nothing else lies."""

_MAGIC = b"hardypic1\n"
_HEAD = struct.Struct(f"<{len(_MAGIC)}sII16s")
"""What a file begins with: the magic, height, width, and the checksum of the name, the sizes and all that follows."""

_TOTAL = "bytes"
"""The file that says how many bytes the cache has taken; absent or torn, they are counted anew."""


class DiskCache:
    """Pictures in the sub-folder `OWN` of ``folder``, of at most ``most`` bytes in all.

    Where it is full, pictures of other versions give way; then no more are kept, and the log says so once.

    Args:
        folder: made at the first picture; several caches may share it, each with its own ``version`` and ``settings``,
            and then share its bytes.
        version: what draws the pictures.
        settings: what they are drawn with.
        most: bytes of all files there.
    """

    def __init__(self, folder: Path, version: str, settings: str, *, most: int) -> None:
        self.folder = folder / OWN  # what is removed lies in a folder that nobody but a cache has made
        self.most = most
        self._version = self.folder / version
        self._place = self._version / settings
        self._told = False

    def read(self, name: str) -> Picture | None:
        """The picture ``name``, or None where it is not kept or damaged.

        Args:
            name: a relative path.
        """
        try:
            file = self._place / name
            if not file.is_file():  # a pipe would be waited for
                return None
            data = bytearray(file.read_bytes())
            magic, height, width, found = _HEAD.unpack_from(data)
            inside = memoryview(data)[_HEAD.size :]
            if magic != _MAGIC or len(inside) != height * width * 4 or found != _checksum(name, height, width, inside):
                return None
        except (OSError, struct.error):
            return None
        pixels = np.frombuffer(inside, np.uint8)
        return pixels[: -height * width].reshape(height, width, 3), pixels[-height * width :].reshape(height, width)

    def write(self, name: str, picture: Picture) -> None:
        """Keep ``picture`` as ``name``, if there is room; a file is whole or absent.

        Raises:
            InputError: when the folder cannot be written.
        """
        image, mask = (np.ascontiguousarray(part, dtype=np.uint8) for part in picture)
        height, width = mask.shape
        inside = image.tobytes() + mask.tobytes()
        data = _HEAD.pack(_MAGIC, height, width, _checksum(name, height, width, inside)) + inside
        file = self._place / name
        try:
            with self._alone():
                if self._reserved(len(data) - _size(file)):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    temporary(file).write_bytes(data)
                    os.replace(temporary(file), file)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"{self.folder}: a cache cannot be written there ({error.strerror}); give another folder"
                ) from None
            self._tell("the disk is full")

    def _reserved(self, more: int) -> bool:
        """Whether there is room for ``more`` bytes; they are counted before they are written, so never too few are."""
        total = self._total()
        if total + more > self.most:
            for old in self.folder.iterdir():
                if old.is_dir() and old != self._version:
                    shutil.rmtree(old, ignore_errors=True)
            total = self._counted()
        if total + more > self.most:
            self._tell(f"it has {self.most:,} bytes, the most that it may have")
            return False
        waiting = temporary(self.folder / _TOTAL)
        waiting.write_text(str(total + more), encoding="ascii")
        os.replace(waiting, self.folder / _TOTAL)
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
        """Inside the block no other process writes to the cache."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _tell(self, why: str) -> None:
        if not self._told:
            _log.warning("%s: keeps no more pictures, for %s; the others are drawn each time", self.folder, why)
        self._told = True


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _checksum(name: str, height: int, width: int, inside: bytes | memoryview) -> bytes:
    found = blake2b(f"{name}:{height}x{width}:".encode(), digest_size=16)
    found.update(inside)
    return found.digest()
