"""``hardy runs``: list the runs of a folder with their headline numbers, compare runs, remove runs."""

import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import typer

from hardy import records
from hardy.commands.output.printing import percent, say, show_rows, warn
from hardy.engine.card import measured
from hardy.engine.run_folder import origin_of
from hardy.errors import InputError
from hardy.lock import NAME, Lock
from hardy.records import Record
from hardy.stored import read_json

__all__ = ["compare", "remove", "run"]

_NUMBERS = {"parameters": ("parameters", "parameters_after"), "GMACs": ("gmacs", "gmacs_after")}
"""Shown cost -> the metrics that record it: of a trained network, and of a pruned one."""


def run(*folders: Path, metric: str | None = None) -> None:
    """Print a row per run below ``folders``: stage, seed, intra, unseen and worst.

    The score is the mean IoU or the accuracy, or another ``metric`` of the records, such as ``iou/vessel``.
    Measurements with test-time adaptation have separate rows.

    Raises:
        InputError: for a folder without a run.
    """
    files = []
    for folder in folders:
        found = sorted(file for file in folder.rglob("records.jsonl") if not (file.parent / "cells").is_dir())
        if not found:
            raise InputError(f"{folder}: there is no run with a records.jsonl below it; hardy train writes one")
        files += found
    rows = []
    for file in files:
        for (stage, seed), group in records.group(_read(file), "stage", "seed"):
            for how, values in _headlines(group, metric).items():
                if {"intra", "unseen"} & set(values):
                    numbers = [percent(values.get(name)) for name in ("intra", "unseen", "worst")]
                    rows.append([str(file.parent), f"{stage}{how}", str(seed), *numbers])
    show_rows(
        f"runs: {metric}" if metric else "runs", ["folder", "stage", "seed", "intra %", "unseen %", "worst %"], rows
    )


def compare(folders: Sequence[Path], *, metric: str | None = None) -> None:
    """Print how runs differ: settings of their recipes, the latest score of each domain, and costs.

    For two runs the last column is the difference of the scores in points.

    Raises:
        InputError: for fewer than two runs, the same run twice, or a folder without records.
    """
    if len(set(folders)) < max(2, len(folders)):
        raise InputError("runs compare: give two runs or more, each once: hardy runs compare runs/x runs/y")
    found = []
    for folder in folders:
        if not (folder / "records.jsonl").is_file():
            raise InputError(
                f"{folder}: it has no records.jsonl, so it is not a measured run; hardy runs lists the runs"
            )
        found.append(_read(folder / "records.jsonl"))
    pair = len(folders) == 2
    columns = ["", *map(str, folders), *(["difference"] if pair else [])]
    rows = [[*row, *([""] if pair else [])] for row in _settings(folders)]
    scores = [{each.target: each.value for each in measured(group, metric)} for group in found]
    for target in dict.fromkeys(name for each in scores for name in each):
        values = [each.get(target) for each in scores]
        both = pair and None not in values
        change = [f"{100 * ((values[1] or 0) - (values[0] or 0)):+.1f}" if both else "–"] if pair else []
        rows.append([f"{target} %", *map(percent, values), *change])
    for text, names in _NUMBERS.items():
        costs = [next((r.value for r in reversed(group) if r.metric in names), None) for group in found]
        if any(cost is not None for cost in costs):
            shown = ["–" if cost is None else f"{cost:.4g}" for cost in costs]
            rows.append([text, *shown, *([""] if pair else [])])
    show_rows(f"runs compared: {metric or 'mIoU or accuracy'}", columns, rows)


def _read(file: Path) -> list[Record]:
    """The records in ``file``; an incomplete last line is left out, with a warning."""
    torn: list[str] = []
    found = records.read(file, torn=torn)
    for line in torn:
        warn(line)
    return found


def _settings(folders: Sequence[Path]) -> list[list[str]]:
    """A row for each setting that differs between the recipes of the runs; a dash for a run without it."""
    recipes = [origin_of(folder).recipe for folder in folders]
    values = [recipe.flat() if recipe else {} for recipe in recipes]
    keys = [key for key in dict.fromkeys(key for each in values for key in each) if key != "run.folder"]
    texts = [(key, [str(each.get(key, "–")) for each in values]) for key in keys]
    return [[key, *row] for key, row in texts if len(set(row)) > 1]


def remove(folders: Sequence[Path], *, yes: bool = False) -> int:
    """Remove runs with all their files; ask first, unless ``yes``.

    Returns:
        the exit code: 1 after the answer no, else 0.

    Raises:
        InputError: for a folder that is not a run or that a process uses, or without ``yes`` if nobody can answer; then
            nothing is removed.
    """
    if not folders:
        raise InputError("runs rm: name the runs to remove: hardy runs rm runs/x")
    for folder in folders:
        if folder.is_symlink() or not any((folder / name).is_file() for name in ("recipe.yaml", "network.json")):
            raise InputError(
                f"{folder}: it has no recipe.yaml and no network.json, so it is not a run; nothing is removed"
            )
        with Lock(folder, who="hardy run", advice="wait for it"):
            files = [path for path in folder.rglob("*") if path.is_file() and path.name != NAME]
        say(f"{folder}: {len(files)} files, {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB")
        for other in _needing(folder):
            say(f"{other} was tuned from it and cannot be loaded without it")
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("runs rm: nobody can answer here; give --yes to remove them without asking")
        if not typer.confirm("Remove them permanently?", err=True):
            say("nothing was removed")
            return 1
    for folder in folders:
        shutil.rmtree(folder)
        say(f"{folder}: removed")
    return 0


def _needing(folder: Path) -> list[Path]:
    """The runs beside ``folder`` whose weights are incomplete without it."""
    found = []
    for file in folder.parent.glob("*/network.json"):
        with suppress(InputError, OSError, AttributeError, TypeError):
            place = read_json(file).get("rest", {}).get("from", {}).get("run")
            if place and (file.parent / place).resolve() == folder.resolve():
                found.append(file.parent)
    return found


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
