"""``hardy runs``: the runs of a folder with their headline numbers, read from their records."""

from pathlib import Path

from hardy import records
from hardy.commands._print import percent, show_rows
from hardy.errors import InputError
from hardy.records import Record

__all__ = ["run"]


def run(folder: Path, *, metric: str | None = None) -> None:
    """Print a row per run below ``folder``: stage, seed, intra, unseen and worst.

    That is of the mean IoU or the accuracy, or of another ``metric`` of the records, such as ``iou/vessel``. What was
    measured while the network adapted has rows of its own.

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
            for how, values in _headlines(group, metric).items():
                if {"intra", "unseen"} & set(values):
                    numbers = [percent(values.get(name)) for name in ("intra", "unseen", "worst")]
                    rows.append([str(file.parent), f"{stage}{how}", str(seed), *numbers])
    show_rows(
        f"runs: {metric}" if metric else "runs", ["folder", "stage", "seed", "intra %", "unseen %", "worst %"], rows
    )


def _headlines(group: list[Record], metric: str | None) -> dict[str, dict[str, float | None]]:
    """The headline numbers by target, by how the network adapted; the latest of each."""
    found: dict[str, dict[str, float | None]] = {}
    for record in group:
        if record.metric == metric if metric else record.metric in ("miou", "accuracy"):
            found.setdefault(_adapted(record.notes.get("adapt")), {})[record.target] = record.value
    return found


def _adapted(note: object) -> str:
    """What a row says of the adaptation that a record's note names."""
    if not isinstance(note, dict):
        return ""
    options = "".join(f", {key} {value}" for key, value in note.items() if key not in ("name", "reset"))
    return f" + {note.get('name')}, reset {note.get('reset')}{options}"
