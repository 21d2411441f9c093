"""The folder of a study: finished cells, the records of all cells, failures, and deleting weights.

The folder holds ``cells/<cell>`` (each the folder of a run), ``recipes/<cell>.yaml`` (the recipe of each cell),
``logs/<cell>.txt`` (its output), ``records.jsonl`` (the numbers of all cells) and ``failures.jsonl`` (the cells that
failed in their last run).
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hardy import records
from hardy.engine.run_files import WEIGHTS, holds_network, unfinished
from hardy.engine.run_folder import tidy
from hardy.errors import InputError
from hardy.files import clear, expanded, write_text
from hardy.lock import Lock
from hardy.recipe import Recipe, first_of, read
from hardy.records import Record
from hardy.stored import json_lines, json_value, read_json
from hardy.studies.cells import Cell
from hardy.trust import allowing, names_in

__all__ = ["Failure", "Ledger"]


@dataclass(frozen=True)
class Failure:
    """A failed cell: the reason in one line, the exit code, and the log."""

    cell: str
    reason: str
    code: int
    log: str


class Ledger:
    """The folder of a study.

    Args:
        folder: its path.
        study: the study's name, for the records.
        cells: all its cells.
    """

    def __init__(self, folder: Path, study: str, cells: Sequence[Cell]) -> None:
        self.folder = expanded(folder)
        self.study = study
        self.cells = {cell.name: cell for cell in cells}
        self.store = self.folder / "records.jsonl"

    def run_folder(self, cell: str) -> Path:
        """The folder of a cell's run."""
        return self.folder / "cells" / cell

    def log(self, cell: str) -> Path:
        """The file for a cell's output."""
        return self.folder / "logs" / f"{cell}.txt"

    def recipe_file(self, cell: str) -> Path:
        """The file of a cell's recipe."""
        return self.folder / "recipes" / f"{cell}.yaml"

    def done(self, names: Iterable[str]) -> list[str]:
        """The finished cells among ``names``, except those whose weights were deleted and are needed again.

        An unfinished cell needs the weights of the cell that it continues from. The weights of a tuned cell are
        complete only together with those of the cell that it was tuned from.

        Raises:
            InputError: if another recipe was run in the folder of a cell.
        """
        wanted = list(names)
        finished = [name for name in wanted if self._finished(self.cells[name])]
        while True:  # a cell that a cell without weights continues from may have no weights either
            needed = self._needed(name for name in wanted if name not in finished)
            lost = [name for name in finished if name in needed and not self._complete(name)]
            if not lost:
                return finished
            finished = [name for name in finished if name not in lost]

    def _finished(self, cell: Cell) -> bool:
        folder = self.run_folder(cell.name)
        if not (folder / "network.json").exists():
            return False
        if (folder / "recipe.yaml").exists():
            with allowing(names_in(cell.recipe.model_dump())):  # code that this study runs anyway
                earlier, now = _alike(read(folder / "recipe.yaml")), _alike(cell.recipe)
            if changes := now.changes(earlier):
                raise InputError(
                    f"{folder}: it holds the run of another recipe or seed ({first_of(changes)}); delete it, or give "
                    "another study.folder"
                )
        dropped = not (folder / WEIGHTS).exists()  # `drop` deletes weights that no other cell needs
        return (dropped or holds_network(folder)) and not unfinished(folder)

    def _needed(self, unfinished: Iterable[str]) -> set[str]:
        """The cells whose weights these cells need: those they continue from and, for tuned ones, their base."""
        needed: set[str] = set()
        for name in unfinished:
            before = self.cells[name].after
            while before is not None and before not in needed:
                needed.add(before)
                before = self._rest(before)
        return needed

    def _complete(self, name: str) -> bool:
        """Whether the weights of a cell exist, and also those of the cell that it was tuned from."""
        rest = self._rest(name)
        return (self.run_folder(name) / WEIGHTS).exists() and (rest is None or self._complete(rest))

    def _rest(self, name: str) -> str | None:
        """The earlier cell that ``name`` was tuned from, with its remaining weights; None if it was not tuned."""
        folder = self.run_folder(name)
        try:
            origin = (folder / read_json(folder / "network.json")["rest"]["from"]["run"]).resolve()
        except (OSError, InputError, KeyError, TypeError):  # not tuned, or not saved
            return None
        before = self.cells[name].after
        while before is not None and self.run_folder(before).resolve() != origin:
            before = self.cells[before].after
        return before

    def tidy(self, names: Iterable[str]) -> None:
        """Remove leftovers of killed processes from the folders of these finished cells."""
        for name in names:
            tidy(self.run_folder(name))

    def prepare(self, cell: str) -> bool:
        """Write the recipe of a cell before it runs, and mark the cell as unfinished if its weights were dropped.

        Returns False, and leaves the cell as it is, if another process has finished it since `done`.

        Raises:
            InputError: see `done`.
        """
        self._failures([failure for failure in self.failures() if failure.cell != cell])
        if self._complete(cell) and self._finished(self.cells[cell]):
            return False
        self.cells[cell].recipe.write(self.recipe_file(cell), {"study": self.study, "cell": cell})
        self.log(cell).parent.mkdir(parents=True, exist_ok=True)
        (self.run_folder(cell) / "network.json").unlink(missing_ok=True)
        return True

    def gather(self, names: Iterable[str]) -> None:
        """Append the new records of these cells to the study's records."""
        new: list[Record] = []
        for name in names:
            file = self.run_folder(name) / "records.jsonl"
            measured = {_key(record): record for record in self._measured(name, file)} if file.exists() else {}
            new += [record for key, record in measured.items() if self._latest.get(key) != record]
        records.append(self.store, new)
        self._latest.update((_key(record), record) for record in new)

    def read(self) -> list[Record]:
        """The records of this study's cells; if a cell was measured twice, the latest."""
        return [record for record in self._latest.values() if record.notes.get("cell") in self.cells]

    @cached_property
    def _latest(self) -> dict[tuple[Any, ...], Record]:
        """The study's records by cell, target and metric; only this ledger writes them."""
        return {_key(record): record for record in records.read(self.store)} if self.store.exists() else {}

    def _measured(self, name: str, file: Path) -> Iterator[Record]:
        cell = self.cells[name]
        about = {"study": self.study, "cell": name, "of": cell.stage, "axes": dict(cell.axes)}
        for record in records.read(file):
            if record.stage == cell.verb:
                yield replace(record, notes={**record.notes, **about})

    def failed(self, failure: Failure) -> None:
        """Add a failure."""
        self._failures([*(other for other in self.failures() if other.cell != failure.cell), failure])

    def failures(self) -> list[Failure]:
        """The cells that failed in their last run."""
        file = self.folder / "failures.jsonl"
        failures = []
        for number, line in enumerate(json_lines(file) if file.exists() else (), start=1):
            try:
                failure = Failure(**json_value(line))
                texts = (failure.cell, failure.reason, failure.log)
                if not isinstance(failure.code, int) or not all(isinstance(text, str) for text in texts):
                    raise ValueError("fields of wrong types")
            except (TypeError, ValueError) as error:
                raise InputError(f"{file}:{number}: not a failure: {error}; delete the line to continue") from None
            failures.append(failure)
        return failures

    def _failures(self, failures: Sequence[Failure]) -> None:
        file = self.folder / "failures.jsonl"
        if not failures:
            file.unlink(missing_ok=True)
            return
        write_text(file, "".join(json.dumps(asdict(failure)) + "\n" for failure in failures))

    def drop(self) -> None:
        """Delete the weights of all finished cells that no unfinished cell needs."""
        folders = {name: self.run_folder(name) for name in self.cells}
        finished = [name for name, f in folders.items() if (f / "network.json").exists() and not unfinished(f)]
        needed = self._needed(name for name in self.cells if name not in finished)
        for name in finished:
            if name not in needed:
                (self.run_folder(name) / WEIGHTS).unlink(missing_ok=True)
                for part in ("dense", "pruned"):
                    shutil.rmtree(self.run_folder(name) / part, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[Path]:
        """Lock the folder, and create a file in it for the duration of the block: cells stop when it is deleted.

        Raises:
            InputError: when another study runs in the folder.
        """
        with Lock(self.folder, who="hardy study", advice="wait for it"):
            for stale in self.folder.glob(".going-*"):
                stale.unlink()
            clear(self.folder, "recipes")
            going = self.folder / f".going-{os.getpid()}-{os.urandom(4).hex()}"
            going.touch()
            try:
                yield going
            finally:
                going.unlink(missing_ok=True)


def _key(record: Record) -> tuple[Any, ...]:
    return record.notes.get("cell"), record.target, record.metric


def _alike(recipe: Recipe) -> Recipe:
    """``recipe`` without the folder of the network that it continues from, for comparison."""
    run = recipe.network.run
    network = recipe.network.model_copy(update={"run": run and Path(run).name})
    return recipe.model_copy(update={"network": network})
