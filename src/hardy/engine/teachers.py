"""The teacher of a run: which algorithms need one, and loading the one that the recipe names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hardy.deployment.exported import Exported
from hardy.engine import artefact, start
from hardy.engine.run_files import WEIGHTS
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Method, Recipe
from hardy.registry import ALGORITHMS
from hardy.sections import Teacher as Section
from hardy.seed import seeded

__all__ = ["FOLDER", "Given", "load", "needed_by", "section", "trained_by"]

FOLDER = "teacher"
"""The sub-folder of a run for a teacher that was given in memory."""

Given = Network | str | Path | Mapping[str, Any]
"""A teacher as Python gives it: a network, a run's folder, an ONNX file, or a recipe's section."""


def needed_by(method: Method) -> bool:
    """Whether the algorithm ``method`` needs a teacher; it is not imported."""
    return "teacher" in (ALGORITHMS.describe(method.name).supplied or ())


def trained_by(recipe: Recipe, verb: str) -> Iterator[Method]:
    """The algorithms that ``hardy VERB`` trains with by ``recipe``."""
    given = recipe.network.run or recipe.network.sha256  # pruning does not train such a network first
    if verb == "train" or (verb == "prune" and not given):
        yield recipe.algorithm
    if verb == "prune" and recipe.prune and recipe.prune.recovery:
        yield recipe.prune.recover_with or recipe.algorithm


def load(choice: Section) -> Teacher:
    """The teacher of ``choice``, on the CPU; the state of torch's generator does not change.

    Raises:
        InputError: for weights with another checksum than ``choice`` names, and what loading raises.
    """
    with seeded(0, "teacher"):  # building a network draws weights before its own are loaded
        if choice.onnx:
            file = expanded(choice.onnx)
            start.refuse_other(choice.sha256, file, "teacher")
            return Teacher(Exported(file), choice.precision)
        assert choice.run, "a teacher is a run or a file"
        folder = expanded(choice.run)
        start.refuse_other(choice.sha256, folder / WEIGHTS, "teacher")
        try:
            return Teacher(artefact.load(folder), choice.precision)
        except InputError as error:
            raise InputError(f"teacher.run: {error}") from error.__cause__


def section(given: Given, folder: Path | None) -> dict[str, Any]:
    """The section ``teacher`` of a recipe for ``given``.

    Args:
        given: see `Given`.
        folder: the run's folder, whose sub-folder `FOLDER` a network will be saved in; None when it is not saved.

    Raises:
        InputError: for a network that must be saved and could not be loaded again.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, Network):
        return {"onnx" if Path(given).suffix == ".onnx" else "run": str(given)}
    if folder is not None:
        artefact.check(given)
    place = "a network in memory" if folder is None else str(folder / FOLDER)
    return {"run": place, "sha256": artefact.checksum(given)}
