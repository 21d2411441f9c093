"""The folder of a run: its path, its lock, whether the run is finished, and the cleaning up after killed processes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hardy.curves import FILE as CURVES
from hardy.engine.run_files import PASSING, PEERS, START, holds_network, unfinished
from hardy.errors import InputError
from hardy.files import clear, expanded, leftovers
from hardy.lock import NAME as LOCK
from hardy.lock import Lock
from hardy.recipe import Recipe, first_of, read
from hardy.trust import allowing, names_in

__all__ = ["Origin", "finished", "folder_of", "locked", "origin_of", "tidy", "unused"]

_PARTS = ("dense", "pruned", "largest", "teacher", START)
"""Sub-folders with networks of their own."""


def _parts(folder: Path) -> list[str]:
    """The sub-folders of ``folder`` that may hold a network, those of `PEERS` among them."""
    return [*_PARTS, *(f"{PEERS}/{path.name}" for path in folder.glob(f"{PEERS}/*"))]


class Origin(NamedTuple):
    """The run that made a network, for records: its recipe's digest, its sources and its seed."""

    digest: str = ""
    sources: tuple[str, ...] = ()
    seed: int = 0
    recipe: Recipe | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """The (height, width) to which the run resized its images; None if it did not."""
        return self.recipe.data.size if self.recipe else None

    def root(self, given: str | None = None) -> str | None:
        """The folder of all data sets: ``given``, else the run's own if it is on this machine, else None."""
        own = self.recipe.data.root if self.recipe else None
        return given or (own if own and expanded(own).is_dir() else None)

    def options(
        self, references: Sequence[str], given: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The options of the data sets of ``references``: the run's own, each replaced by that of ``given``."""
        own = self.recipe.data.datasets if self.recipe else {}
        names = {reference.partition("/")[0] for reference in references}
        kept = {name: dict(options) for name, options in own.items() if name in names}
        return {**kept, **{name: {**kept.get(name, {}), **options} for name, options in (given or {}).items()}}


def origin_of(folder: Path) -> Origin:
    """The origin of the network in ``folder``; an empty one when the folder has no recipe.

    Raises:
        InputError: for a recipe that cannot be read.
    """
    file = folder / "recipe.yaml"
    if not file.exists():
        return Origin()
    made = read(file)
    return Origin(made.digest(), made.data.sources, made.run.seed, made)


def folder_of(recipe: Recipe, verb: str) -> Path:
    """The folder of the run of ``recipe``."""
    name = recipe.network.name.split(":")[-1] or verb
    return expanded(recipe.run.folder or f"runs/{name}-{recipe.digest()}-s{recipe.run.seed}")


@contextmanager
def locked(folder: Path, recipe: Recipe) -> Iterator[None]:
    """Lock ``folder`` for this process and ``recipe``; it is made if it is missing, and leftover files are removed.

    Raises:
        InputError: when it cannot be written, another process works in it, or another recipe has run in it.
    """
    fresh = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
        lock = Lock(folder, who="hardy run", advice="wait for it, or give another run.folder").acquire()
    except OSError as error:
        with suppress(OSError):
            if fresh:
                folder.rmdir()
        why = f": {error.strerror}" if error.strerror else ""
        raise InputError(f"run.folder: {folder} cannot be written{why}; give another folder") from None
    try:
        _refuse_other(folder, recipe)
        clear(folder, *_parts(folder))
        if unused(folder):  # then training starts again
            (folder / CURVES).unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def finished(recipe: Recipe, verb: str) -> Path | None:
    """The folder of ``recipe`` if its run is finished and its weights are complete, else None."""
    folder = folder_of(recipe, verb)
    if not holds_network(folder) or unfinished(folder):
        return None
    _refuse_other(folder, recipe)
    tidy(folder)
    return folder


def tidy(folder: Path) -> None:
    """Remove the files of an unfinished run from the folder of a finished one, whose process was killed at its end."""
    passing = [folder / name for name in PASSING if (folder / name).exists()]
    if passing or leftovers(folder, *_parts(folder)) or (folder / LOCK).exists():
        with suppress(InputError, OSError), Lock(folder):
            clear(folder, *_parts(folder))
            for path in passing:
                path.unlink(missing_ok=True)


def _refuse_other(folder: Path, recipe: Recipe) -> None:
    """Refuse a folder in which another recipe, or the same with another seed, has run.

    An `unused` folder, as after a misspelt domain, is accepted.

    Raises:
        InputError: naming the keys that changed.
    """
    file = folder / "recipe.yaml"
    if not file.exists() or unused(folder):
        return
    with allowing(names_in(recipe.model_dump())):  # code that this call runs anyway
        changes = recipe.changes(read(file))
    if changes:
        raise InputError(
            f"{folder}: holds the run of another recipe or seed ({first_of(changes)}); give another run.folder"
        )


def unused(folder: Path) -> bool:
    """Whether ``folder`` exists and holds only a recipe, a log, curves, and the networks that a run was given."""
    given = {"recipe.yaml", "train.log", CURVES, LOCK, START, "teacher", "teacher.json"}
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= given
