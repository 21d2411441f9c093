"""Files that belong together: all are written, or none."""

import os
from collections.abc import Mapping
from pathlib import Path

from hardy.errors import named

__all__ = ["write_together"]


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
