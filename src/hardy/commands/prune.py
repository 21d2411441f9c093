"""``hardy prune``: remove what matters least, recover, measure before and after."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from hardy.commands._costs import Change, PruningReport, cost_values, costs, show_costs, show_module
from hardy.commands._memory import from_sections, opened, sections_of
from hardy.commands._print import say, show_table
from hardy.commands._progress import terminal
from hardy.commands._scores import refuse_unmeasured
from hardy.commands._sensitivity import show_sweep, sweep_values
from hardy.commands._words import adapt_words
from hardy.engine import artefact
from hardy.engine.evaluate import Table
from hardy.engine.protocol import Split
from hardy.engine.prune import prune as operate
from hardy.engine.prune import prune_module, rehearse
from hardy.engine.prune import sensitivity as swept
from hardy.engine.run import Run
from hardy.engine.run_files import holds_network
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.tensors import check_finite
from hardy.pruning.schedules.base import Schedule
from hardy.pruning.silent import kept_silent
from hardy.pruning.sweep import Sweep
from hardy.recipe import Optim, Prune, Recipe
from hardy.registry import SCHEDULES
from hardy.sections import Floors
from hardy.timing.bench import Comparison

__all__ = ["prune", "run", "sensitivity"]

_log = logging.getLogger("hardy")

Module = TypeVar("Module", bound=nn.Module)

_TRAINED = (
    "target_ms",
    "target_gmacs",
    "runtime",
    "lr",
    "floors",
    "stop",
    "recovery",
    "recovery_lr",
    "recover_with",
)
"""What a prune section may say only where there are a training loop and measured domains."""


def run(recipe: Recipe, *, show: bool = True) -> Path:
    """Prune the network of ``recipe``, recover, measure and show tables; the run's folder.

    Goes on where an earlier call stopped.

    A recipe that names a network, not a run, trains it first and keeps it in the folder's ``dense``.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used.
        Stopped: after Ctrl-C or SIGTERM.
    """
    if done := Run.finished(recipe, "prune"):
        if show:
            say(f"{done}: this run is finished; give another run.folder to run it again")
        return done
    choice = _choice(recipe)
    with Run.open(recipe, "prune", terminal) as here:
        network = here.network()
        images = here.images(network)
        _recoverable(here, network, images, choice)
        dense = _dense(here, network, images)
        made = _story(here, dense, images, choice, show=show)
        table = _measured(here, made, images, choice)
    if show:
        show_table(f"{here.folder}: {_goal(choice)} by {choice.criterion.name}{adapt_words(recipe.adapt)}", table)
        _show(made)
    refuse_unmeasured(table, here.folder, recipe.adapt)
    return here.folder


@dataclass(frozen=True)
class _Done:
    """What pruning and recovery made of ``dense``, and what it costs."""

    dense: Network
    network: Network
    found: PruningReport
    changes: Change
    comparisons: Sequence[Comparison]


def _story(here: Run, dense: Network, images: Split, choice: Prune, *, show: bool, keep: bool = True) -> _Done:
    """Prune a copy of ``dense``, recover and count; with ``keep`` a call that was stopped goes on."""
    network, found = _pruned(here, dense, images, choice, show=show, keep=keep)
    _recovered(here, network, images, choice, dense)
    if choice.recovery and keep:
        here.keep(network, measured=False)
    seen = costs(dense, network, here.recipe) if show or keep else ([], [])
    return _Done(dense, network, found, *seen)


def _measured(here: Run, done: _Done, images: Split, choice: Prune) -> Table:
    """Measure the smaller network, record it with its costs, save it, and end the run."""
    chosen = here.recipe.network
    notes = {
        "network": chosen.name or chosen.run,
        "criterion": choice.criterion.name,
        "ratio": choice.ratio,
        "schedule": choice.schedule.name,
        **done.found.notes(),
        **here.selection,
    }
    table = here.measure(done.network, images, "prune", notes)
    here.record("prune", images.sources, cost_values(done.changes), notes)
    here.keep(done.network)
    return table


def _show(done: _Done) -> None:
    show_costs(done.changes, done.comparisons, done.found, done.dense, done.network)


def sensitivity(recipe: Recipe, *, show: bool = True) -> Path:
    """Measure and show what each unit's pruning alone would cost, and stop; the run's folder, which holds the records.

    A recipe that names a network, not a run, trains it first; `run` goes on from there.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used.
        Stopped: after Ctrl-C or SIGTERM.
    """
    choice = _choice(recipe)
    with Run.open(recipe, "prune", terminal) as here:
        network = here.network()
        images = here.images(network)
        dense = _dense(here, network, images)
        found = swept(dense, choice, here.view(images), pixel_loss=here.pixel_loss(dense))
        _record_sweep(here, found, images, choice, show=show)
    return here.folder


def _record_sweep(here: Run, found: Sweep, images: Split, choice: Prune, *, show: bool) -> None:
    """Record a sweep, and show it."""
    floors, criterion = choice.floors or Floors(), choice.criterion.name
    notes = {"criterion": criterion, "tolerance": floors.tolerance, "images": floors.images}
    here.record("sensitivity", images.sources, sweep_values(found, floors), notes)
    if here.main and show:
        show_sweep(f"{here.folder}: sensitivity by {criterion}", found, floors)


def _recoverable(here: Run, network: Network, images: Split, choice: Prune) -> None:
    """Refuse, before anything is trained, a recovery that cannot be.

    Raises:
        InputError: for an algorithm that the data or its options do not allow, or one named for no steps.
    """
    if choice.recovery:
        optim = here.recipe.optim
        built = here.algorithm(deepcopy(network), choice.recover_with, network)
        built.check(len(images.train), optim.batch // optim.accumulate)
        if not built.trains_network:
            name = (choice.recover_with or here.recipe.algorithm).name
            raise InputError(f"prune.recover_with: {name} does not train the network; recover with erm or the like")
    elif choice.recover_with:
        raise InputError(
            f"prune.recover_with: {choice.recover_with.name} is to recover in 0 steps; give prune.recovery some"
        )


def _choice(recipe: Recipe) -> Prune:
    if recipe.prune is None:
        raise InputError(
            "recipe: hardy prune needs a prune section, such as prune: {criterion: {name: ior}, ratio: 0.5}"
        )
    if recipe.network.run and recipe.network.classes:
        raise InputError(
            f"network.classes: {recipe.network.classes} would give {recipe.network.run} a last layer that is not "
            "trained yet; hardy train it from there first, or leave network.classes out"
        )
    return recipe.prune


def _goal(choice: Prune) -> str:
    """What ``choice`` prunes to, in words."""
    if choice.ratio is not None:
        return f"{'at most ' if choice.stop else ''}{choice.ratio:.0%} of filters removed"
    if choice.target_ms is not None:
        return f"pruned to {choice.target_ms:g} ms in {choice.runtime}"
    return f"pruned to {choice.target_gmacs:g} GMACs"


def _dense(here: Run, network: Network, images: Split) -> Network:
    """The network before pruning: an earlier run's as it is, or a new one trained now and kept."""
    chosen = here.recipe.network
    if chosen.run or chosen.sha256:
        if network.plan:
            _log.warning("%s is already pruned: what is removed now is counted from what it has left", chosen.run)
        return network
    if kept := here.part("dense", network):
        if not holds_network(here.folder / "pruned"):  # a checkpoint here can only be what became `dense`
            here.remove_checkpoint()
        return kept
    rehearse(network, _choice(here.recipe), here.view(images), pixel_loss=here.pixel_loss(network))
    here.fit(network, images, "train")
    here.keep_part(network, "dense")
    here.remove_checkpoint()
    return network


def _pruned(
    here: Run, dense: Network, images: Split, choice: Prune, *, show: bool, keep: bool
) -> tuple[Network, PruningReport]:
    """The smaller network before its recovery and what pruning found: kept, so that a stopped recovery goes on."""
    if keep and (earlier := here.part("pruned", dense)):
        return earlier, PruningReport.read(here.folder)
    network = deepcopy(dense)
    found = _cut(here, network, images, choice, show=show)
    if keep:
        found.write(here.folder)
        here.keep_part(network, "pruned")
    return network, found


def _cut(here: Run, network: Network, images: Split, choice: Prune, *, show: bool) -> PruningReport:
    """Score and remove, in place; record the sensitivities and how far a stop rule let it go."""
    with here.progress(here, "score", 0) as log:
        surgery = operate(network, choice, here.view(images), pixel_loss=here.pixel_loss(network), log=log)
    here.cost["score_steps"] = float(surgery.pruned.steps)
    if surgery.sweep:
        _record_sweep(here, surgery.sweep, images, choice, show=show)
    if choice.stop:
        notes = {"stop": list(choice.stop.domains), "drop": choice.stop.drop}
        here.record("prune", images.sources, [("cost", "removed", surgery.pruned.ratio)], notes)
    return PruningReport(surgery.outcome, surgery.blocked)


def _recovered(here: Run, network: Network, images: Split, choice: Prune, dense: Network) -> None:
    """Train the smaller network in place for ``choice.recovery`` steps; ``dense`` teaches where the recipe
    names no teacher."""
    if choice.recovery:
        optim = here.recipe.optim.model_copy(update={"steps": choice.recovery, "lr": choice.recovery_lr})
        optim = Optim.model_validate(optim.model_dump())
        with kept_silent(network):
            here.fit(network, images, "recover", optim=optim, method=choice.recover_with, teacher=dense)


def prune(
    network: Module,
    example: Tensor | None = None,
    criterion: str | Mapping[str, Any] | None = None,
    *,
    data: Sequence[str] | Mapping[str, Any] = (),
    ratio: float | None = None,
    target_ms: float | None = None,
    target_gmacs: float | None = None,
    prune: Mapping[str, Any] | None = None,
    loss: str | Mapping[str, Any] = "cross_entropy",
    optim: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    show: bool = True,
    trust: Sequence[str] = (),
) -> Module:
    """A physically smaller copy of ``network``, in evaluation mode; ``network`` itself stays as it is.

    Args:
        network: from `hardy.create`, `hardy.load` or `hardy.wrap`; or any module, scored as it stands and cut once.
        example: an input of a module that is none of these; its ``data`` are pairs of images and labels.
        criterion: a name of ``hardy list criterion``, or ``{"name": ..., options}``; by default ``ior``, and for a
            plain module ``taylor`` where there are data, else ``l2``.
        data: source domains such as ``["streets/sim", "streets/day"]``, or a recipe's ``data`` section. A criterion
            that reads the weights alone, such as ``l2``, needs none: without data the schedule is ``one_shot``.
        ratio: share of filters REMOVED, in (0, 1); 0.5 when neither this nor a target is given.
        target_ms: the most milliseconds that one image of the data's size may take, measured here in
            ``prune["runtime"]``.
        target_gmacs: the most billions of multiply-accumulates for one image.
        prune: the rest of a recipe's ``prune`` section, such as ``{"schedule": "one_shot", "recovery": 200}``.
        loss: a name of ``hardy list loss``, or ``{"name": ..., options}``.
        optim: a recipe's ``optim`` section, such as ``{"batch": 8}``.
        run: a recipe's ``run`` section, such as ``{"seed": 1}``.
        folder: where checkpoints, records and the network go; without one nothing is kept on disk.
        show: print parameters, GMACs and, of a `Network`, measured milliseconds before and after.
        trust: modules whose code may run where a file, such as a run of ``style_vae``, names it.

    Raises:
        InputError: for anything that cannot be used.
    """
    given = {"criterion": criterion, "ratio": ratio, "target_ms": target_ms, "target_gmacs": target_gmacs}
    said = {**(prune or {}), **{name: value for name, value in given.items() if value is not None}}
    if isinstance(network, Network):
        sections = {**sections_of(data, "erm", loss, (optim or {}).get("steps", 1), optim, None), "prune": said}
        return cast(Module, _in_memory(network, sections, folder=folder, run=run, show=show, trust=trust))
    asked = [f"prune.{name}" for name in _TRAINED if name in said]
    asked += [name for name, value in {"folder": folder, "optim": optim}.items() if value]
    sections = {**sections_of((), "erm", loss, 1, None, None), "run": run or {}}
    return _bare(network, example, data, said, sections, asked, show=show)


def _in_memory(
    network: Network,
    sections: Mapping[str, Any],
    *,
    folder: str | Path | None,
    run: Mapping[str, Any] | None,
    show: bool,
    trust: Sequence[str],
) -> Network:
    """`prune` of a `Network`: the story of the command, and with a ``folder`` its records and snapshots too."""
    check_finite(network)
    with opened(network, "prune", sections, folder=folder, run=run, trust=trust) as (here, kept):
        if here is None:
            assert kept is not None, "only a run with a folder is finished"
            return artefact.like(kept, network)
        images, choice = here.images(network), _choice(here.recipe)
        _recoverable(here, network, images, choice)
        done = _story(here, network, images, choice, show=show, keep=kept is not None)
        table = _measured(here, done, images, choice) if kept else None
    if show:
        _show(done)
    if table:
        refuse_unmeasured(table, here.folder)
    return done.network.eval()


def _bare(
    module: Module,
    example: Tensor | None,
    data: Any,
    said: Mapping[str, Any],
    sections: Mapping[str, Any],
    asked: Sequence[str],
    *,
    show: bool,
) -> Module:
    """A smaller copy of a module that is no `Network`; what could not be pruned is logged with the reason.

    Args:
        module: what is pruned.
        example: an input for it.
        data: batches, or nothing.
        said: a recipe's ``prune`` section; without a criterion ``taylor`` where there are data, else ``l2``.
        sections: the others.
        asked: what the call asked for that only a `Network` can be given.
        show: print parameters and GMACs before and after.

    Raises:
        InputError: without an ``example``, for what only a `Network` can be given, and as `prune_module`.
    """
    if example is None:
        raise InputError(
            f"{type(module).__name__} is no Network: give example=, an input such as torch.rand(2, 3, H, W)"
        )
    batches = None if isinstance(data, tuple) and not data else data
    named = said.get("schedule", "one_shot")
    schedule = {"name": named} if isinstance(named, str) else dict(named)
    given = {"criterion": "l2" if batches is None else "taylor", **said, "schedule": schedule}
    recipe = from_sections({"run": "a module in memory"}, **sections, prune=given)
    choice = _choice(recipe)
    built: Schedule = SCHEDULES.build(choice.schedule.name, **choice.schedule.options)
    if asked or built.trains:
        what = asked[0] if asked else f"the {choice.schedule.name} schedule"
        raise InputError(f"{what} needs a Network: wrap the module with hardy.wrap, or prune it one_shot to a ratio")
    small, surgery = prune_module(module, example, choice, data=batches, loss=recipe.loss, run=recipe.run)
    for name, reason in surgery.blocked.items():
        expected = reason == "reaches the network's output"  # as the last layer of any network does
        _log.log(logging.INFO if expected else logging.WARNING, "left whole: %s: %s", name, reason)
    if show:
        show_module(module, small, example, sorted(set(surgery.kinds.values())), list(surgery.blocked))
    return small
