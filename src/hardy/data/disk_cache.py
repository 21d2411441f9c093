"""A cache on disk for labelled pictures, with a size limit, so that slow drawings are made only once.

The key of a picture is its name and the settings that it was drawn with. Each file has a checksum; a damaged file is
treated as absent. Several processes can read and write a cache at the same time.
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
"""The sub-folder of a cache, which contains nothing else."""

_MAGIC = b"hardypic1\n"
_HEAD = struct.Struct(f"<{len(_MAGIC)}sII16s")
"""The header of a file: the magic, height, width, and the checksum of the name, the sizes and the rest of the file."""


class DiskCache:
    """Pictures in the sub-folder `OWN` of ``folder``, with at most ``most`` bytes in total.

    If it is full, pictures of other versions are deleted. If that is not enough, no more pictures are kept, with one
    message in the log.

    Args:
        folder: created with the first picture. Several caches can share it, each with its own ``version`` and
            ``settings``; then they share its bytes.
        version: the version of the code that draws the pictures.
        settings: the settings that they are drawn with.
        most: the largest size of all files in bytes.
    """

    def __init__(self, folder: Path, version: str, settings: str, *, most: int) -> None:
        self.folder = folder / OWN  # only folders that a cache has made are deleted
        kept = self.folder / version
        self._place = kept / settings
        self._files = KeptFiles(self.folder, kept, most, what="pictures", instead="the others are drawn each time")

    def read(self, name: str) -> Picture | None:
        """The picture ``name``; None if it is not kept or damaged.

        Args:
            name: a relative path.
        """
        try:
            file = self._place / name
            if not file.is_file():  # reading a pipe would block
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
