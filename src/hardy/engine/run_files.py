"""The files of a run's folder: whether they hold a complete network, and whether the run is unfinished. No torch."""

import hashlib
import json
from pathlib import Path

__all__ = ["BEST", "CHECKPOINT", "PASSING", "PEERS", "START", "WEIGHTS", "holds_network", "unfinished"]

WEIGHTS = "network.safetensors"

START = "start"
"""The sub-folder for the network in memory that a run started from."""

PEERS = "peers"
"""The sub-folder for the networks that were trained beside the one that is kept, each in a sub-folder of its name."""

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
PASSING = (CHECKPOINT, BEST)
"""The files that only an unfinished run needs, in the order in which they are removed."""


def unfinished(folder: Path) -> bool:
    """Whether the run in ``folder`` has a checkpoint: its network may be saved, but it is not measured yet."""
    return (folder / CHECKPOINT).exists()


def holds_network(folder: Path) -> bool:
    """Whether ``folder`` holds ``network.json`` and the weights with the checksum in it."""
    if not all((folder / name).is_file() for name in ("network.json", WEIGHTS)):  # reading a pipe would block
        return False
    try:
        description = json.loads((folder / "network.json").read_bytes())
        with (folder / WEIGHTS).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return bool(description["sha256"] == sha256)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
