"""``hardy prune``: remove the least important channels, fine-tune, and measure before and after."""

import logging
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from hardy.commands.input.in_memory import from_sections, open_run, sections_of
from hardy.commands.input.words import adapt_words
from hardy.commands.output.costs import (
    CostPairs,
    PruningReport,
    cost_values,
    costs,
    reading_values,
    show_costs,
    show_module,
    show_readings,
)
from hardy.commands.output.printing import say, say_lineage, show_table
from hardy.commands.output.progress import terminal
from hardy.commands.output.sensitivity import show_sweep, sweep_values
from hardy.commands.output.unmeasured import refuse_unmeasured
from hardy.engine import artefact
from hardy.engine.evaluate import ScoreTable
from hardy.engine.protocol import Split
from hardy.engine.prune import prune as operate
from hardy.engine.prune import prune_module, rehearse
from hardy.engine.prune import sensitivity as measure_sensitivity
from hardy.engine.run import Run
from hardy.engine.run_files import holds_network
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.changes import refuse_folded
from hardy.ops.tensors import check_finite
from hardy.pruning.schedules.base import Schedule
from hardy.pruning.sweep import Sweep
from hardy.recipe import Optim, Prune, Recipe
from hardy.registry import SCHEDULES
from hardy.sections import Floors
from hardy.timing.bench import Comparison

__all__ = ["prune", "run", "sensitivity"]

_log = logging.getLogger("hardy")

Module = TypeVar("Module", bound=nn.Module)

_NEED_NETWORK = (
    "target_ms",
    "target_gmacs",
    "runtime",
    "lr",
    "floors",
    "stop",
    "recovery",
    "recovery_lr",
    "recover_with",
    "total_steps",
)
"""Keys of a prune section that need a `Network`, because they train it or measure it."""


def run(recipe: Recipe, *, show: bool = True) -> Path:
    """Prune the network of ``recipe``, recover, measure and show tables; returns the run's folder.

    A stopped run is resumed. If the recipe names a network instead of a run, the network is trained first and saved in
    the sub-folder ``dense``.

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
        refuse_folded(network.changes, "prune")
        images = here.images(network)
        _check_recovery(here, network, images, choice)
        dense = _dense(here, network, images)
        made = _prune_and_recover(here, dense, images, choice, show=show)
        table = _measure_and_save(here, made, images, choice)
    if show:
        title = f"{_goal(choice, made.report.removed)} by {choice.criterion.name}{adapt_words(recipe.adapt)}"
        show_table(f"{here.folder}: {title}", table)
        _show(made)
        for remark in here.remarks:
            say(remark)
        say_lineage(str(here.folder), made.network)
    refuse_unmeasured(table, here.folder, recipe.adapt)
    return here.folder


@dataclass(frozen=True)
class _Result:
    """The network that pruning and recovery made from ``dense``, and its costs."""

    dense: Network
    network: Network
    report: PruningReport
    changes: CostPairs
    comparisons: Sequence[Comparison]


def _prune_and_recover(
    here: Run, dense: Network, images: Split, choice: Prune, *, show: bool, keep: bool = True
) -> _Result:
    """Prune a copy of ``dense``, recover and compute costs; with ``keep`` a stopped call can resume."""
    network, report = _pruned(here, dense, images, choice, show=show, keep=keep)
    _recover(here, network, images, choice, dense, report)
    if choice.recovers and keep:
        here.keep(network, measured=False)
    changes, comparisons = costs(dense, network, here.recipe) if show or keep else ([], [])
    return _Result(dense, network, report, changes, comparisons)


def _measure_and_save(here: Run, result: _Result, images: Split, choice: Prune) -> ScoreTable:
    """Measure the smaller network, record it with its costs, save it, and finish the run."""
    chosen = here.recipe.network
    notes = {
        "network": chosen.noted,
        "criterion": choice.criterion.name,
        "ratio": choice.ratio,
        "schedule": choice.schedule.name,
        **result.report.notes(),
        **here.selection,
    }
    table = here.measure(result.network, images, "prune", notes)
    here.record("prune", images.sources, cost_values(result.changes, result.comparisons), notes)
    here.measure_agreement(result.network, images, "prune", notes)
    here.measure_peers(images, "prune", notes)
    here.keep(result.network)
    return table


def _show(result: _Result) -> None:
    show_costs(result.changes, result.comparisons, result.report, result.dense, result.network)
    show_readings(result.report)


def sensitivity(recipe: Recipe, *, show: bool = True) -> Path:
    """Measure and show how the score drops if only one unit is pruned, for each unit; returns the run's folder.

    If the recipe names a network instead of a run, the network is trained first; `run` continues from it.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used.
        Stopped: after Ctrl-C or SIGTERM.
    """
    choice = _choice(recipe)
    with Run.open(recipe, "prune", terminal) as here:
        network = here.network()
        refuse_folded(network.changes, "prune")
        images = here.images(network)
        dense = _dense(here, network, images)
        sweep = measure_sensitivity(dense, choice, here.view(images), pixel_loss=here.pixel_loss(dense))
        _record_sweep(here, sweep, images, choice, show=show)
    return here.folder


def _record_sweep(here: Run, sweep: Sweep, images: Split, choice: Prune, *, show: bool) -> None:
    """Record a sweep, and with ``show`` print it."""
    floors, criterion = choice.floors or Floors(), choice.criterion.name
    notes = {"criterion": criterion, "tolerance": floors.tolerance, "images": floors.images}
    here.record("sensitivity", images.sources, sweep_values(sweep, floors), notes)
    if here.main and show:
        show_sweep(f"{here.folder}: sensitivity by {criterion}", sweep, floors)


def _check_recovery(here: Run, network: Network, images: Split, choice: Prune) -> None:
    """Refuse a recovery that cannot run, before anything is trained.

    Raises:
        InputError: for an algorithm that cannot use the data or its options, that does not train the network, or that
            is given with 0 steps.
    """
    if choice.recovers:
        optim, steps = here.recipe.optim, choice.recovery or choice.total_steps or 0
        built = here.algorithm(deepcopy(network), choice.recover_with, network, steps)
        built.check(len(images.train), optim.batch // optim.accumulate)
        if not built.trains_network:
            name = (choice.recover_with or here.recipe.algorithm).name
            raise InputError(f"prune.recover_with: {name} does not train the network; use one that does, such as erm")
    elif choice.recover_with:
        raise InputError(f"prune.recover_with: {choice.recover_with.name} has 0 steps to recover; set prune.recovery")


def _choice(recipe: Recipe) -> Prune:
    if recipe.prune is None:
        raise InputError(
            "recipe: hardy prune needs a prune section, such as prune: {criterion: {name: ior}, ratio: 0.5}"
        )
    if recipe.network.run and recipe.network.classes:
        raise InputError(
            f"network.classes: {recipe.network.classes} would give {recipe.network.run} a new, untrained last layer; "
            "train that network first with hardy train, or leave network.classes out"
        )
    return recipe.prune


def _goal(choice: Prune, removed: float | None) -> str:
    """What was reached of the goal of ``choice``, in words; ``removed`` is the share of the channels that went."""
    if choice.ratio is not None:
        share = choice.ratio if removed is None else removed
        asked = "" if f"{share:.0%}" == f"{choice.ratio:.0%}" else f" (asked for: {choice.ratio:.0%})"
        return f"{share:.0%} of filters removed{asked}"
    if choice.target_ms is not None:
        return f"pruned to {choice.target_ms:g} ms in {choice.runtime}"
    return f"pruned to {choice.target_gmacs:g} GMACs"


def _dense(here: Run, network: Network, images: Split) -> Network:
    """The network before pruning: an earlier run's, or a new one that is trained now and saved."""
    chosen = here.recipe.network
    if chosen.run or chosen.sha256:
        if network.plan:
            _log.warning("%s is already pruned: the goal is relative to its remaining channels", chosen.run)
        return network
    if trained := here.part("dense", network):
        if not holds_network(here.folder / "pruned"):  # a checkpoint here is from the training of `dense`
            here.remove_checkpoint()
        return trained
    rehearse(network, _choice(here.recipe), here.view(images), pixel_loss=here.pixel_loss(network))
    here.fit(network, images, "train")
    here.measure_peers(images, "train", {"network": here.recipe.network.name, **here.selection})
    here.keep_part(network, "dense")
    here.remove_checkpoint()
    return network


def _pruned(
    here: Run, dense: Network, images: Split, choice: Prune, *, show: bool, keep: bool
) -> tuple[Network, PruningReport]:
    """The smaller network before its recovery, and a report; with ``keep`` both are saved, so that it can resume."""
    if keep and (earlier := here.part("pruned", dense)):
        report = PruningReport.read(here.folder)
        here.cost.update(report.took)
        return earlier, report
    network = deepcopy(dense)
    report = _cut(here, network, images, choice, show=show)
    if keep:
        report.write(here.folder)
        here.keep_part(network, "pruned")
    return network, report


def _cut(here: Run, network: Network, images: Split, choice: Prune, *, show: bool) -> PruningReport:
    """Score and remove channels, in place; record a sweep and, with a stop rule, the share of filters removed."""
    began = time.perf_counter()
    with here.progress(here, "score", 0) as log:
        surgery = operate(network, choice, here.view(images), pixel_loss=here.pixel_loss(network), log=log)
    seconds = round(time.perf_counter() - began, 2)
    took = {"score_steps": float(surgery.pruned.steps), "score_seconds": seconds}
    here.cost.update(took)
    if surgery.sweep:
        _record_sweep(here, surgery.sweep, images, choice, show=show)
    if choice.stop:
        notes = {"stop": list(choice.stop.domains), "drop": choice.stop.drop}
        here.record("prune", images.sources, [("cost", "removed", surgery.pruned.ratio)], notes)
    report = PruningReport(surgery.outcome, surgery.blocked, took, tuple(surgery.rounds), surgery.pruned.ratio)
    notes = {"criterion": choice.criterion.name, "schedule": choice.schedule.name}
    here.record("prune", images.sources, reading_values(report), notes)
    return report


def _recover(here: Run, network: Network, images: Split, choice: Prune, dense: Network, report: PruningReport) -> None:
    """Train the smaller network in place for the recovery steps; ``dense`` is the teacher if the recipe names
    none."""
    if steps := _recovery_steps(choice, int(report.took.get("score_steps", 0))):
        optim = here.recipe.optim.model_copy(update={"steps": steps, "lr": choice.recovery_lr})
        optim = Optim.model_validate(optim.model_dump())
        here.fit(network, images, "recover", optim=optim, method=choice.recover_with, teacher=dense)


def _recovery_steps(choice: Prune, made: int) -> int:
    """The number of recovery steps, given the ``made`` steps of the rounds.

    Raises:
        InputError: if the rounds took more than ``choice.total_steps``.
    """
    if choice.total_steps is None:
        return choice.recovery
    if made > choice.total_steps:
        raise InputError(
            f"prune.total_steps: {choice.total_steps}, but the rounds took {made}; raise it, or remove more per round"
        )
    return choice.total_steps - made


def prune(
    network: Module,
    example: Tensor | None = None,
    criterion: str | Mapping[str, Any] | None = None,
    *,
    data: str | Sequence[str] | Mapping[str, Any] = (),
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
    """A physically smaller copy of ``network``, in evaluation mode; ``network`` itself does not change.

    Args:
        network: from `hardy.create`, `hardy.load` or `hardy.wrap`; any other module is scored in its mode, pruned once.
        example: for any other module: an input. Its ``data`` are pairs of images and labels.
        criterion: a name of ``hardy list criterion``, or ``{"name": ..., options}``. The default is ``ior``; for any
            other module it is ``taylor`` with data and ``l2`` without.
        data: source domains such as ``["streets/sim", "streets/day"]``, or a recipe's ``data`` section. A criterion
            that reads only the weights, such as ``l2``, needs no data; then the default schedule is ``one_shot``.
        ratio: share of filters REMOVED, in (0, 1); 0.5 if neither this nor a target is given.
        target_ms: upper limit of the milliseconds for one image of the data's size, measured on this machine in
            ``prune["runtime"]``.
        target_gmacs: upper limit of the billions of multiply-accumulates for one image.
        prune: the rest of a recipe's ``prune`` section, such as ``{"schedule": "one_shot", "recovery": 200}``.
        loss: a name of ``hardy list loss``, or ``{"name": ..., options}``.
        optim: a recipe's ``optim`` section, such as ``{"batch": 8}``.
        run: a recipe's ``run`` section, such as ``{"seed": 1}``.
        folder: for checkpoints, records and the network; without a folder nothing is saved.
        show: print parameters, GMACs and, for a `Network`, measured milliseconds before and after.
        trust: modules whose code may run if a file, such as a run of ``style_vae``, names it.

    Raises:
        InputError: for anything that cannot be used.
    """
    given = {"criterion": criterion, "ratio": ratio, "target_ms": target_ms, "target_gmacs": target_gmacs}
    section = {**(prune or {}), **{name: value for name, value in given.items() if value is not None}}
    if isinstance(network, Network):
        sections = {**sections_of(data, "erm", loss, (optim or {}).get("steps", 1), optim, None), "prune": section}
        return cast(Module, _in_memory(network, sections, folder=folder, run=run, show=show, trust=trust))
    refused = [f"prune.{name}" for name in _NEED_NETWORK if name in section]
    refused += [name for name, value in {"folder": folder, "optim": optim}.items() if value]
    sections = {**sections_of((), "erm", loss, 1, None, None), "run": run or {}}
    return _bare(network, example, data, section, sections, refused, show=show)


def _in_memory(
    network: Network,
    sections: Mapping[str, Any],
    *,
    folder: str | Path | None,
    run: Mapping[str, Any] | None,
    show: bool,
    trust: Sequence[str],
) -> Network:
    """`prune` for a `Network`: the steps of the command and, with a ``folder``, also its records and checkpoints."""
    check_finite(network)
    refuse_folded(network.changes, "prune")
    with open_run(network, "prune", sections, folder=folder, run=run, trust=trust) as (here, kept):
        if here is None:
            assert kept is not None, "only a run with a folder is finished"
            return artefact.like(kept, network)
        images, choice = here.images(network), _choice(here.recipe)
        _check_recovery(here, network, images, choice)
        result = _prune_and_recover(here, network, images, choice, show=show, keep=kept is not None)
        table = _measure_and_save(here, result, images, choice) if kept else None
    if show:
        _show(result)
    if table:
        refuse_unmeasured(table, here.folder)
    return result.network.eval()


def _bare(
    module: Module,
    example: Tensor | None,
    data: Any,
    section: Mapping[str, Any],
    sections: Mapping[str, Any],
    refused: Sequence[str],
    *,
    show: bool,
) -> Module:
    """A smaller copy of a module that is not a `Network`; it logs the layers that could not be pruned, with the reason.

    Args:
        module: the module to prune.
        example: an input for it.
        data: batches, or an empty tuple.
        section: a recipe's ``prune`` section; the default criterion is ``taylor`` with data, else ``l2``.
        sections: the other sections of a recipe.
        refused: arguments of the call that only a `Network` supports.
        show: print parameters and GMACs before and after.

    Raises:
        InputError: without an ``example``, for ``refused`` arguments, and as `prune_module`.
    """
    if example is None:
        raise InputError(
            f"{type(module).__name__} is not a Network: give example=, an input such as torch.rand(2, 3, H, W)"
        )
    batches = None if isinstance(data, tuple) and not data else data
    named = section.get("schedule", "one_shot")
    schedule = {"name": named} if isinstance(named, str) else dict(named)
    given = {"criterion": "l2" if batches is None else "taylor", **section, "schedule": schedule}
    recipe = from_sections({"run": "a module in memory"}, **sections, prune=given)
    choice = _choice(recipe)
    built: Schedule = SCHEDULES.build(choice.schedule.name, **choice.schedule.options)
    if refused or built.trains:
        what = refused[0] if refused else f"the {choice.schedule.name} schedule"
        raise InputError(f"{what} needs a Network: use hardy.wrap on the module, or prune one_shot to a ratio")
    small, surgery = prune_module(module, example, choice, data=batches, loss=recipe.loss, run=recipe.run)
    for name, reason in surgery.blocked.items():
        expected = reason == "reaches the network's output"  # as the last layer of any network does
        _log.log(logging.INFO if expected else logging.WARNING, "not pruned: %s: %s", name, reason)
    if show:
        show_module(module, small, example, sorted(set(surgery.kinds.values())), list(surgery.blocked))
    return small
