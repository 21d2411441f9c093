"""The teachers of a run: which algorithms need one, and loading those that the recipe names."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hardy.deployment.exported import Exported
from hardy.device import pick
from hardy.engine import artefact, start
from hardy.engine.run_files import WEIGHTS
from hardy.engine.teacher_precision import settled
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network
from hardy.networks.building import lineage
from hardy.networks.building.averaged import Averaged
from hardy.networks.building.kept_outputs import KeptOutputs
from hardy.networks.building.teacher import Teacher
from hardy.ops.tensors import check_finite
from hardy.recipe import Method, Recipe
from hardy.registry import ALGORITHMS
from hardy.sections import Teacher as Section
from hardy.seed import seeded

__all__ = ["FOLDER", "Given", "Loaded", "load", "needed_by", "of_memory", "of_recipe", "section", "trained_by"]

FOLDER = "teacher"
"""The sub-folder of a run for a teacher that was given in memory."""

Given = Network | str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]]
"""A teacher as Python gives it: a network, a run's folder, an ONNX file, or a recipe's section; or a list of those that
are no network."""


class Loaded(NamedTuple):
    """What a run learns from.

    Attributes:
        teacher: one, or the average of several.
        described: an entry for each of them; see `hardy.networks.building.lineage.of_teacher`.
        notes: for the records: where the teachers are, and the precisions that were measured.
    """

    teacher: Teacher
    described: Sequence[Mapping[str, Any]]
    notes: Mapping[str, Any]


def needed_by(method: Method) -> bool:
    """Whether the algorithm ``method`` needs a teacher; it is not imported."""
    return "teacher" in (ALGORITHMS.describe(method.name).supplied or ())


def trained_by(recipe: Recipe, verb: str) -> Iterator[Method]:
    """The algorithms that ``hardy VERB`` trains with by ``recipe``."""
    given = recipe.network.run or recipe.network.sha256  # pruning does not train such a network first
    if verb == "train" or (verb == "prune" and not given):
        yield recipe.algorithm
    if verb == "prune" and recipe.prune and recipe.prune.recovers:
        yield recipe.prune.recover_with or recipe.algorithm


def load(choice: Section) -> Teacher:
    """The teacher of ``choice``, on the CPU; the state of torch's generator does not change.

    Raises:
        InputError: for weights that are not finite or have another checksum than ``choice`` names, and what loading
            raises.
    """
    with seeded(0, "teacher"):  # building a network draws weights before its own are loaded
        if choice.onnx:
            file = expanded(choice.onnx)
            start.refuse_other(choice.sha256, file, "teacher")
            return _built(Exported(file), choice)
        assert choice.run, "a teacher is a run or a file"
        folder = expanded(choice.run)
        start.refuse_other(choice.sha256, folder / WEIGHTS, "teacher")
        start.refuse_other_form(choice.form, folder, "teacher")
        try:
            network = artefact.load(folder)
            check_finite(network)
        except InputError as error:
            raise InputError(f"teacher.run: {error}") from error.__cause__
        return _built(network, choice)


def of_recipe(recipe: Recipe, folder: Path) -> Loaded:
    """The teacher that ``recipe`` names, or the average of several, with measured precision and caches.

    Args:
        recipe: names one or more.
        folder: of the run.

    Raises:
        InputError: what `load`, `settled` and `KeptOutputs` raise; for teachers without a common class, or of
            different kinds.
    """
    made, described, precisions = [], [], []
    for choice in recipe.teachers:
        teacher = load(choice)
        sha256 = _checksum(choice)
        if choice.precision == "auto":
            _settle(teacher, sha256, recipe, folder)
            precisions.append(teacher.precision)
        if choice.cache_folder:
            teacher.kept = _kept(choice, teacher, sha256, recipe)
        described.append(_described(teacher.network, choice, sha256))
        made.append(teacher)
    notes = _notes(recipe, precisions)
    return Loaded(made[0] if len(made) == 1 else Teacher(Averaged(made)), described, notes)


def of_memory(network: Network, recipe: Recipe, folder: Path) -> Loaded:
    """``network``, which is in memory, as the one teacher that ``recipe`` names.

    Raises:
        InputError: for weights that are not finite, and what `settled` and `KeptOutputs` raise.
    """
    (choice,) = recipe.teachers
    check_finite(network)
    teacher, sha256 = _built(network, choice), artefact.checksum(network)
    if choice.precision == "auto":
        _settle(teacher, sha256, recipe, folder)
    if choice.cache_folder:
        teacher.kept = _kept(choice, teacher, sha256, recipe)
    notes = _notes(recipe, [teacher.precision] if choice.precision == "auto" else [])
    return Loaded(teacher, [lineage.of_teacher(network, str(choice.run), sha256)], notes)


def _notes(recipe: Recipe, precisions: Sequence[object]) -> dict[str, Any]:
    """What the records say of the teachers: where they are, and the ``precisions`` that were measured."""
    measured = {"teacher_precision": ", ".join(map(str, precisions))} if precisions else {}
    named = [str(one.run or one.onnx) for one in recipe.teachers]
    return {"teacher": named[0] if len(named) == 1 else named, **measured}


def section(given: Given, folder: Path | None) -> dict[str, Any] | list[dict[str, Any]]:
    """The section ``teacher`` of a recipe for ``given``.

    Args:
        given: see `Given`.
        folder: the run's folder, whose sub-folder `FOLDER` a network will be saved in; None when it is not saved.

    Raises:
        InputError: for a network that must be saved and could not be loaded again, or a network in a list.
    """
    if isinstance(given, (str, Path, Mapping)):
        return _named(given)
    if not isinstance(given, Network):
        if any(isinstance(one, Network) for one in given):
            raise InputError("teacher: a list holds runs and files; save the network first (hardy.save)")
        return [_named(one) for one in given]
    if folder is not None:
        artefact.check(given)
    place = "a network in memory" if folder is None else str(folder / FOLDER)
    return {"run": place, "sha256": artefact.checksum(given), "form": artefact.form(given)}


def _named(given: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The section for a run's folder, an ONNX file, or a section."""
    return (
        dict(given) if isinstance(given, Mapping) else {"onnx" if Path(given).suffix == ".onnx" else "run": str(given)}
    )


def _built(network: Network, choice: Section) -> Teacher:
    """A teacher as ``choice`` says; with ``precision: auto`` it has fp32 until that is measured.

    Raises:
        InputError: for a size below the network's minimum.
    """
    if choice.size and min(choice.size) < network.least_size:
        sides = f"{choice.size[0]}x{choice.size[1]}"
        name, least = type(network).__name__, network.least_size
        raise InputError(f"teacher.size: {sides} pixels, but {name} needs at least {least} on each side")
    return Teacher(network, "fp32" if choice.precision == "auto" else choice.precision, size=choice.size)


def _described(network: Network, choice: Section, sha256: str) -> dict[str, Any]:
    if isinstance(network, Exported):
        return {**lineage.of_teacher(network, str(choice.onnx), sha256, network.weights_from), "name": str(choice.onnx)}
    return lineage.of_teacher(network, str(choice.run), sha256)


def _checksum(choice: Section) -> str:
    return (
        start.checksum_of(expanded(choice.onnx)) if choice.onnx else artefact.saved_checksum(expanded(choice.run or ""))
    )


def _settle(teacher: Teacher, sha256: str, recipe: Recipe, folder: Path) -> None:
    """Give ``teacher`` its measured precision, in place; an ONNX file has one only."""
    if teacher.network.gives_features:
        height, width = recipe.data.crop
        shape = (max(1, recipe.optim.batch // recipe.optim.accumulate), 3, height, width)
        teacher.precision = settled(teacher, sha256, folder, shape, pick(recipe.run.device))


def _kept(choice: Section, teacher: Teacher, sha256: str, recipe: Recipe) -> KeptOutputs:
    settings = {
        "precision": str(teacher.precision),
        "size": str(choice.size),
        "torch": torch.__version__,
        "device": pick(recipe.run.device).type,
    }
    data = [*(name.partition("/")[0] for name in recipe.data.sources), *recipe.data.unlabelled]
    assert choice.cache_folder, "it is named"
    return KeptOutputs(expanded(choice.cache_folder), sha256, data, settings, most=choice.cache_mb * 10**6)
