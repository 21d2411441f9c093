"""``hardy runs``: the runs of a folder with their headline numbers, read from their records."""

from pathlib import Path

from hardy import records
from hardy.commands._print import percent, show_rows
from hardy.errors import InputError

__all__ = ["run"]


def run(folder: Path) -> None:
    """Print a row per run below ``folder``: sources, seed, intra, unseen and worst.

    Raises:
        InputError: when there is no run.
    """
    files = sorted(file for file in folder.rglob("records.jsonl") if not (file.parent / "cells").is_dir())
    if not files:
        raise InputError(f"{folder}: no run's records.jsonl is below it; hardy train writes one")
    rows = []
    for file in files:
        found = records.read(file)
        for (stage, seed), group in records.group(found, "stage", "seed"):
            values = {record.target: record.value for record in group if record.metric in ("miou", "accuracy")}
            if {"intra", "unseen"} & set(values):
                numbers = [percent(values.get(name)) for name in ("intra", "unseen", "worst")]
                rows.append([str(file.parent), stage, str(seed), *numbers])
    show_rows("runs", ["folder", "stage", "seed", "intra %", "unseen %", "worst %"], rows)
