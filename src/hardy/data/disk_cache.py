"""Labelled pictures kept on disk, within a number of bytes, so that what is slow to draw is drawn once.

A picture is found under the settings that it was drawn with and its own name. Each file holds a checksum: one that is
torn or damaged counts as absent. Several processes may read and write one cache at a time.
"""

import struct
from hashlib import blake2b
from pathlib import Path

import numpy as np

from hardy.data.kept_files import KeptFiles

__all__ = ["OWN", "DiskCache"]

Picture = tuple[np.ndarray, np.ndarray]
"""An image (H, W, 3) uint8 and its mask (H, W) uint8."""

OWN = "hardy-pictures"
"""The sub-folder of a cache, in which nothing else lies."""

_MAGIC = b"hardypic1\n"
_HEAD = struct.Struct(f"<{len(_MAGIC)}sII16s")
"""What a file begins with: the magic, height, width, and the checksum of the name, the sizes and all that follows."""


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
        kept = self.folder / version
        self._place = kept / settings
        self._files = KeptFiles(self.folder, kept, most, what="pictures", instead="the others are drawn each time")

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
        """Keep ``picture`` as ``name``, if there is room; a file is complete or absent.

        Raises:
            InputError: when the folder cannot be written.
        """
        image, mask = (np.ascontiguousarray(part, dtype=np.uint8) for part in picture)
        height, width = mask.shape
        inside = image.tobytes() + mask.tobytes()
        data = _HEAD.pack(_MAGIC, height, width, _checksum(name, height, width, inside)) + inside
        file = self._place / name
        self._files.write(file, data)


def _checksum(name: str, height: int, width: int, inside: bytes | memoryview) -> bytes:
    found = blake2b(f"{name}:{height}x{width}:".encode(), digest_size=16)
    found.update(inside)
    return found.digest()
