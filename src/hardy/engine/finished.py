"""Whether the folder of a run holds a network, all of it. No torch is imported here."""

import hashlib
import json
from pathlib import Path

__all__ = ["WEIGHTS", "whole"]

WEIGHTS = "network.safetensors"


def whole(folder: Path) -> bool:
    """Whether ``folder`` holds ``network.json`` and the weights whose checksum it names."""
    try:
        description = json.loads((folder / "network.json").read_bytes())
        with (folder / WEIGHTS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return bool(description["sha256"] == found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
