"""Files that belong together: all are written, or none; and descriptions that know whether they are intact."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardy.errors import named

__all__ = ["intact", "sealed", "write_together"]

_SEAL = "description_sha256"


def sealed(description: Mapping[str, Any]) -> dict[str, Any]:
    """``description`` with the checksum of all that it says."""
    return {**description, _SEAL: _sum(description)}


def intact(description: Mapping[str, Any]) -> bool:
    """Whether ``description`` says what it said when it was `sealed`; True for one from before there were seals."""
    return _SEAL not in description or description[_SEAL] == _sum(description)


def _sum(description: Mapping[str, Any]) -> str:
    said = {key: value for key, value in description.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write ``files`` under temporary names, and rename them when all are on the disk: an old pair stays till then."""
    waiting = {file: file.with_name(f".{file.name}.tmp") for file in files}
    try:
        for file, data in files.items():
            with named(file), waiting[file].open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        for file, temporary in waiting.items():
            os.replace(temporary, file)
    finally:
        for temporary in waiting.values():
            temporary.unlink(missing_ok=True)
