"""``hardy runs``: the runs of a folder with their headline numbers, read from their records."""

from pathlib import Path

from hardy import records
from hardy.commands._print import percent, show_rows
from hardy.errors import InputError
from hardy.records import Record

__all__ = ["run"]


def run(folder: Path, *, metric: str | None = None) -> None:
    """Print a row per run below ``folder``: stage, seed, intra, unseen and worst.

    The score is the mean IoU or the accuracy, or another ``metric`` of the records, such as ``iou/vessel``.
    Measurements with test-time adaptation have separate rows.

    Raises:
        InputError: when there is no run.
    """
    files = sorted(file for file in folder.rglob("records.jsonl") if not (file.parent / "cells").is_dir())
    if not files:
        raise InputError(f"{folder}: has no run with a records.jsonl below it; hardy train writes one")
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
    """Adaptation -> target -> the latest headline number."""
    numbers: dict[str, dict[str, float | None]] = {}
    for record in group:
        if record.metric == metric if metric else record.metric in ("miou", "accuracy"):
            numbers.setdefault(_adapted(record.notes.get("adapt")), {})[record.target] = record.value
    return numbers


def _adapted(note: object) -> str:
    """The text in a row for the adaptation in a record's notes; empty without one."""
    if not isinstance(note, dict):
        return ""
    options = "".join(f", {key} {value}" for key, value in note.items() if key not in ("name", "reset"))
    return f" + {note.get('name')}, reset {note.get('reset')}{options}"
