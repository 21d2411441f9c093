"""The teacher of a run: which algorithms ask for one, and the one that the recipe names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hardy.deployment.exported import Exported
from hardy.engine import artefact, start
from hardy.engine.finished import WEIGHTS
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Method, Recipe
from hardy.registry import ALGORITHMS
from hardy.sections import Teacher as Section
from hardy.seed import seeded

__all__ = ["FOLDER", "Given", "asked_by", "load", "section", "trained_by"]

FOLDER = "teacher"
"""The sub-folder of a run that holds the teacher which it was given in memory."""

Given = Network | str | Path | Mapping[str, Any]
"""A teacher as Python gives it: a network, a run's folder, an ONNX file, or a recipe's section."""


def asked_by(method: Method) -> bool:
    """Whether the algorithm ``method`` asks for a teacher; it is not imported."""
    return "teacher" in (ALGORITHMS.describe(method.name).supplied or ())


def trained_by(recipe: Recipe, verb: str) -> Iterator[Method]:
    """The algorithms by which ``hardy VERB`` trains with ``recipe``."""
    given = recipe.network.run or recipe.network.sha256  # pruning takes such a network as it is
    if verb == "train" or (verb == "prune" and not given):
        yield recipe.algorithm
    if verb == "prune" and recipe.prune and recipe.prune.recovery:
        yield recipe.prune.recover_with or recipe.algorithm


def load(choice: Section) -> Teacher:
    """The teacher of ``choice``, on the CPU; torch's generator is left as it is.

    Raises:
        InputError: for other weights than ``choice`` names, or what loading meets.
    """
    with seeded(0, "teacher"):  # a network that is built before its weights are loaded draws
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
        folder: of the run, in whose sub-folder `FOLDER` a network is to be kept; None where nothing is.

    Raises:
        InputError: for a network that is to be kept and could not be loaded again.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, Network):
        return {"onnx" if Path(given).suffix == ".onnx" else "run": str(given)}
    if folder is not None:
        artefact.check(given)
    place = "a network in memory" if folder is None else str(folder / FOLDER)
    return {"run": place, "sha256": artefact.checksum(given)}
