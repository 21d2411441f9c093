"""A checksum inside an exported file, which tells a file that was damaged or changed from the one that was proven.

It is the SHA-256 of the file with zeros in its place, an entry of the ONNX metadata. It is no signature: who changes a
file on purpose can write another.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from hardy.errors import InputError

__all__ = ["check_seal", "reserve", "seal"]

KEY = "hardy.sha256"
_ZEROS = b"0" * 64
_BEFORE = KEY.encode() + b"\x12\x40"
"""What stands before the checksum: the entry's key, then protobuf's tag of its value and the length 64."""


def reserve(model: Any) -> None:
    """Add the entry of the checksum to an ONNX ``model``, in place; `seal` fills it in once the file is written."""
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, _ZEROS.decode()


def seal(file: Path) -> None:
    """Write the checksum into ``file``, whose model was given a place for it by `reserve`, in place."""
    content = file.read_bytes()
    place = _place(content)
    assert place is not None, "reserve() made the place"
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(sha256(content).hexdigest().encode())


def check_seal(file: Path) -> None:
    """Compare ``file`` with its checksum; a file without one passes.

    Raises:
        InputError: where they differ.
    """
    content = file.read_bytes()
    place = _place(content)
    if place is None:
        return
    end = place + len(_ZEROS)
    if sha256(content[:place] + _ZEROS + content[end:]).hexdigest().encode() != content[place:end]:
        raise InputError(
            f"{file}: was changed or damaged after its export (its checksum differs); export the network again"
        )


def _place(content: bytes) -> int | None:
    """Where the checksum begins; None where there is none."""
    found = content.rfind(_BEFORE)
    return None if found < 0 else found + len(_BEFORE)
