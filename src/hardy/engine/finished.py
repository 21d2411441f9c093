"""Whether the folder of a run holds a network, all of it, and whether the run has ended. No torch is imported here."""

import hashlib
import json
from pathlib import Path

__all__ = ["BEST", "CHECKPOINT", "PASSING", "START", "WEIGHTS", "going", "whole"]

WEIGHTS = "network.safetensors"

START = "start"
"""The sub-folder of a run that holds the network which it was given in memory."""

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
PASSING = (CHECKPOINT, BEST)
"""What a run needs to go on and a finished one does not; the first goes first."""


def going(folder: Path) -> bool:
    """Whether the run in ``folder`` has something left to do: a network that is saved but not measured yet."""
    return (folder / CHECKPOINT).exists()


def whole(folder: Path) -> bool:
    """Whether ``folder`` holds ``network.json`` and the weights whose checksum it names."""
    if not all((folder / name).is_file() for name in ("network.json", WEIGHTS)):  # a pipe would be waited for
        return False
    try:
        description = json.loads((folder / "network.json").read_bytes())
        with (folder / WEIGHTS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return bool(description["sha256"] == found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
