"""Keys of a recipe that have no effect with its other keys; they are refused before anything is written."""

from collections.abc import Iterator

from hardy.engine.teachers import needed_by, trained_by
from hardy.errors import InputError
from hardy.recipe import Evaluate, Optim, Prune, Recipe
from hardy.registry import ALGORITHMS, SCHEDULES
from hardy.sections import Data

__all__ = ["refuse_unused"]


def refuse_unused(recipe: Recipe, verb: str) -> None:
    """Refuse the first key of ``recipe`` that differs from its default and has no effect in ``hardy VERB``.

    Raises:
        InputError: naming the key, its value, why it has no effect, and what to change.
    """
    for key, value, why in _unused(recipe, verb):
        raise InputError(f"{key}: {value} has no effect: {why}")


def _unused(recipe: Recipe, verb: str) -> Iterator[tuple[str, object, str]]:
    """(key, value, reason) of each key without effect."""
    yield from _sections(recipe, verb)
    yield from _data(recipe.data)
    yield from _unlabelled(recipe, verb)
    yield from _optim(recipe.optim)
    yield from _evaluate(recipe.evaluate, verb)
    if recipe.prune and verb == "prune":
        yield from _prune(recipe.prune)


def _sections(recipe: Recipe, verb: str) -> Iterator[tuple[str, object, str]]:
    for name in ("prune", "search"):
        if getattr(recipe, name) is not None and name != verb:
            yield name, "the section", f"hardy {verb} does not {name}; use hardy {name}, or leave the section out"
    if recipe.teacher and not any(map(needed_by, methods := tuple(trained_by(recipe, verb)))):
        names = " and ".join(dict.fromkeys(method.name for method in methods))
        why = f"{names} needs no teacher" if names else "no algorithm that needs one is used"
        yield "teacher", "the section", f"{why}; train with distillation or the like, or leave the section out"
    if recipe.run.sharding != "none" and verb == "search":
        yield "run.sharding", recipe.run.sharding, "a search runs in one process; leave it out"
    if recipe.adapt and verb == "search":
        yield "adapt", "the section", "a search does not adapt networks; leave the section out"
    if recipe.stream:
        yield "stream", "the section", "only hardy evaluate reads it; hardy evaluate RUN with it, or leave it out"
    if recipe.tuner and verb != "train":
        yield "tuner", recipe.tuner.name, f"hardy {verb} attaches no tuner; hardy train with it, and {verb} that run"
    elif recipe.tuner and not ALGORITHMS.get(recipe.algorithm.name).trains_network:  # type: ignore[attr-defined]
        yield "tuner", recipe.tuner.name, f"{recipe.algorithm.name} does not train the network; leave it out"


def _data(data: Data) -> Iterator[tuple[str, object, str]]:
    usual = Data()
    if data.unseen_splits and not data.unseen:
        yield "data.unseen_splits", list(data.unseen_splits), "data.unseen names no domain; name some"
    if data.holdout != usual.holdout and data.split == "given":
        yield "data.holdout", data.holdout, "data.split is given, so the data sets say what is held out; leave it out"


def _unlabelled(recipe: Recipe, verb: str) -> Iterator[tuple[str, object, str]]:
    folders, many = list(recipe.data.unlabelled), recipe.data.unlabelled_batch
    if many is not None and not folders:
        yield "data.unlabelled_batch", many, "data.unlabelled names no folder; name some, or leave it out"
    methods = tuple(trained_by(recipe, verb)) if folders else ()
    if folders and not any(ALGORITHMS.get(method.name).uses_unlabelled for method in methods):  # type: ignore[attr-defined]
        names = " and ".join(dict.fromkeys(method.name for method in methods)) or f"hardy {verb}"
        yield "data.unlabelled", folders, f"{names} uses no images without labels; use distillation, or leave it out"


def _optim(optim: Optim) -> Iterator[tuple[str, object, str]]:
    if optim.power != Optim().power and optim.schedule != "poly":
        yield "optim.power", optim.power, f"optim.schedule is {optim.schedule}; use poly, or leave it out"
    if optim.accumulate > optim.batch:
        yield "optim.accumulate", optim.accumulate, f"optim.batch is {optim.batch}; it has at most as many parts"


def _evaluate(evaluate: Evaluate, verb: str) -> Iterator[tuple[str, object, str]]:
    if evaluate.every and (evaluate.select == "last" or verb == "search"):
        why = "a search selects architectures" if verb == "search" else "evaluate.select is last"
        yield "evaluate.every", evaluate.every, f"{why}, so no weights are measured during training; set it to 0"
    for key in ("classes", "keep_counts", "keep_worst") if verb == "search" else ():
        if value := getattr(evaluate, key):
            yield f"evaluate.{key}", value, "a search measures no network at its end; train what it found"
    if evaluate.select_class and evaluate.select == "last":
        why = "evaluate.select is last, so nothing is chosen by a score; leave it out"
        yield "evaluate.select_class", evaluate.select_class, why


def _prune(prune: Prune) -> Iterator[tuple[str, object, str]]:
    usual = Prune()
    trains = SCHEDULES.get(prune.schedule.name).trains  # type: ignore[attr-defined]
    if prune.runtime != usual.runtime and prune.target_ms is None and prune.round_to != "auto":
        yield "prune.runtime", prune.runtime, "the goal is not in milliseconds; give target_ms, or leave it out"
    if prune.lr != usual.lr and not trains:
        yield "prune.lr", prune.lr, f"the {prune.schedule.name} schedule does not train; set prune.recovery_lr"
    if prune.recovery_lr != usual.recovery_lr and not prune.recovers:
        yield "prune.recovery_lr", prune.recovery_lr, "prune.recovery is 0; give it some steps"
    if prune.recovery and prune.total_steps:
        yield "prune.recovery", prune.recovery, "prune.total_steps gives the recovery what the rounds leave"
    if prune.scoring and prune.scoring.copies != 1 and not prune.scoring.style:
        yield "prune.scoring.copies", prune.scoring.copies, "there is no style; name prune.scoring.style"
