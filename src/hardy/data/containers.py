"""Checks of image files without decoding: chunks, checksums, and whether the file is complete.

Source: PNG (ISO/IEC 15948:2004), sections 5.3 and 5.5; JPEG (ITU-T T.81), annex B; WebP container (RFC 9649).
"""

import struct
import zlib
from pathlib import Path

__all__ = ["check_sums", "ends_whole", "has_chunk", "is_lossless_webp"]


def ends_whole(path: Path) -> bool:
    """Whether the file ends as its format requires, so that it is complete. False if only decoding can show this."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            length = file.seek(0, 2)
            file.seek(max(0, length - 16))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\x89PNG"):
        return b"IEND" in tail
    if head.startswith(b"\xff\xd8"):
        return tail.rstrip(b"\0\r\n").endswith(b"\xff\xd9")
    if head.startswith(b"RIFF"):
        return length >= int.from_bytes(head[4:8], "little") + 8
    return False


def check_sums(path: Path) -> None:
    """Compare the pixels of a PNG with their checksums, which Pillow does not do.

    Raises:
        ValueError: when they do not match.
    """
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = struct.unpack(">I", head[:4])[0]
            if head[4:] == b"IDAT":
                expected = zlib.crc32(file.read(length), zlib.crc32(b"IDAT"))
                if file.read(4) != struct.pack(">I", expected):
                    raise ValueError("its pixels do not match their checksum")
            else:
                file.seek(length + 4, 1)


def has_chunk(path: Path, name: bytes) -> bool:
    """Whether a PNG has a chunk of this name; the contents of chunks are skipped."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == name:
                return True
            file.seek(struct.unpack(">I", head[:4])[0] + 4, 1)
    return False


def is_lossless_webp(path: Path) -> bool:
    """Whether the first frame of a WebP file is lossless."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8L"
            length = int.from_bytes(head[4:], "little")
            file.seek(length + length % 2, 1)
    return False
