"""``hardy prune``: remove what matters least, recover, measure before and after."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from hardy.commands._costs import Found, cost_values, costs, show_costs
from hardy.commands._foreign import prune_foreign
from hardy.commands._frame import Frame, finished, frame, from_sections, network_of
from hardy.commands._print import say, show_table
from hardy.commands._scores import refuse_unmeasured
from hardy.commands._sensitivity import show_sweep, sweep_values
from hardy.commands.train import sections_of, trained
from hardy.engine import artefact, protocol
from hardy.engine.finished import PASSING, whole
from hardy.engine.prune import prune as operate
from hardy.engine.prune import rehearse
from hardy.engine.prune import sensitivity as swept
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.tensors import check_finite
from hardy.pruning.silent import kept_silent
from hardy.pruning.sweep import Sweep
from hardy.recipe import Optim, Prune, Recipe
from hardy.sections import Floors
from hardy.trust import allowing, names_in

__all__ = ["prune", "run", "sensitivity"]

_log = logging.getLogger("hardy")

Module = TypeVar("Module", bound=nn.Module)


def run(recipe: Recipe, *, show: bool = True) -> Path:
    """Prune the network of ``recipe``, recover, measure and show tables; the run's folder.

    Goes on where an earlier call stopped.

    A recipe that names a network, not a run, trains it first and keeps it in the folder's ``dense``.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used.
        Stopped: after Ctrl-C or SIGTERM.
    """
    if done := finished(recipe, "prune"):
        if show:
            say(f"{done}: this run is finished; give another run.folder to run it again")
        return done
    choice = _choice(recipe)
    with frame(recipe, "prune") as here:
        network = network_of(recipe)
        parts = protocol.checked(protocol.split(recipe.data, recipe.run.seed), network, recipe.data)
        _recoverable(here, network, parts, choice)
        dense = _dense(here, network, parts)
        network, found = _pruned(here, dense, parts, choice, show=show)
        recovered(here, network, parts, choice, dense)
        if choice.recovery:
            here.keep(network, measured=False)
        notes = {
            "network": recipe.network.name or recipe.network.run, "criterion": choice.criterion.name,
            "ratio": choice.ratio, "schedule": choice.schedule.name, **found.notes(), **here.selection,
        }  # fmt: skip
        table = here.measure(network, parts, "prune", notes)
        changes, comparisons = costs(dense, network, recipe)
        here.record("prune", parts.sources, cost_values(changes), notes)
        here.keep(network)
    if show:
        show_table(f"{here.folder}: {_goal(choice)} by {choice.criterion.name}", table)
        show_costs(changes, comparisons, found, dense, network)
    refuse_unmeasured(table, here.folder)
    return here.folder


def sensitivity(recipe: Recipe, *, show: bool = True) -> Path:
    """Measure and show what each unit's pruning alone would cost, and stop; the run's folder, which holds the records.

    A recipe that names a network, not a run, trains it first; `run` goes on from there.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used.
        Stopped: after Ctrl-C or SIGTERM.
    """
    choice = _choice(recipe)
    with frame(recipe, "prune") as here:
        network = network_of(recipe)
        parts = protocol.checked(protocol.split(recipe.data, recipe.run.seed), network, recipe.data)
        dense = _dense(here, network, parts)
        found = swept(
            dense, choice, parts, pixel_loss=here.pixel_loss(dense), data=recipe.data, optim=recipe.optim,
            run=recipe.run, evaluate=recipe.evaluate,
        )  # fmt: skip
        _told(here, found, parts, choice, show=show)
    return here.folder


def _told(here: Frame, found: Sweep, parts: protocol.Split, choice: Prune, *, show: bool) -> None:
    """Record a sweep, and show it."""
    floors, criterion = choice.floors or Floors(), choice.criterion.name
    notes = {"criterion": criterion, "tolerance": floors.tolerance, "images": floors.images}
    here.record("sensitivity", parts.sources, sweep_values(found, floors), notes)
    if here.main and show:
        show_sweep(f"{here.folder}: sensitivity by {criterion}", found, floors)


def _recoverable(here: Frame, network: Network, parts: protocol.Split, choice: Prune) -> None:
    """Refuse, before anything is trained, a recovery that cannot be.

    Raises:
        InputError: for an algorithm that the data or its options do not allow, or one named for no steps.
    """
    if choice.recovery:
        optim = here.recipe.optim
        built = here.algorithm(deepcopy(network), choice.recover_with, network)
        built.check(len(parts.train), optim.batch // optim.accumulate)
        if not built.trains_network:
            name = (choice.recover_with or here.recipe.algorithm).name
            raise InputError(f"prune.recover_with: {name} leaves the network as it is; recover with erm or the like")
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


def _dense(here: Frame, network: Network, parts: protocol.Split) -> Network:
    """The network before pruning: an earlier run's as it is, or a new one trained now and kept."""
    if here.recipe.network.run:
        if network.plan:
            _log.warning("%s is already pruned: what is removed now is counted from what it has left",
                         here.recipe.network.run)  # fmt: skip
        return network
    kept = here.folder / "dense"
    if whole(kept):
        if not whole(here.folder / "pruned") and here.main:  # a checkpoint here can only be what became `dense`
            _drop_checkpoint(here)
        return _again(kept, network)
    rehearse(
        network, _choice(here.recipe), parts, pixel_loss=here.pixel_loss(network), data=here.recipe.data,
        optim=here.recipe.optim, run=here.recipe.run, evaluate=here.recipe.evaluate,
    )  # fmt: skip
    trained(here, network, parts)
    artefact.save(network, kept)
    _drop_checkpoint(here)
    return network


def _drop_checkpoint(here: Frame) -> None:
    """Remove what the stage that ended needed to go on: the next one would take it for its own."""
    for name in PASSING:
        (here.folder / name).unlink(missing_ok=True)


def _pruned(
    here: Frame, dense: Network, parts: protocol.Split, choice: Prune, *, show: bool
) -> tuple[Network, Found]:  # fmt: skip
    """The smaller network before its recovery and what pruning found: kept, so that a stopped recovery goes on."""
    kept = here.folder / "pruned"
    if whole(kept):
        return _again(kept, dense), Found.read(here.folder)
    network = deepcopy(dense)
    found = cut(here, network, parts, choice, show=show)
    found.write(here.folder)
    artefact.save(network, kept)
    return network, found


def _again(kept: Path, network: Network) -> Network:
    """What an earlier call kept of ``network``, whose own code is trusted."""
    return artefact.load(kept, trust=names_in(network.architecture))


def cut(here: Frame, network: Network, parts: protocol.Split, choice: Prune, *, show: bool) -> Found:
    """Score and remove, in place; record the sensitivities and how far a stop rule let it go."""
    recipe = here.recipe
    with here.progress("score", 0) as log:
        surgery = operate(
            network, choice, parts, pixel_loss=here.pixel_loss(network), data=recipe.data, optim=recipe.optim,
            run=recipe.run, evaluate=recipe.evaluate, log=log,
        )  # fmt: skip
    here.cost["score_steps"] = float(surgery.pruned.steps)
    if surgery.sweep:
        _told(here, surgery.sweep, parts, choice, show=show)
    if choice.stop:
        notes = {"stop": list(choice.stop.domains), "drop": choice.stop.drop}
        here.record("prune", parts.sources, [("cost", "removed", surgery.pruned.ratio)], notes)
    return Found(surgery.outcome, surgery.blocked)


def recovered(here: Frame, network: Network, parts: protocol.Split, choice: Prune, dense: Network) -> None:
    """Train the smaller network in place for ``choice.recovery`` steps; ``dense`` teaches where one is to be taught."""
    if choice.recovery:
        optim = here.recipe.optim.model_copy(update={"steps": choice.recovery, "lr": choice.recovery_lr})
        with kept_silent(network):
            step = here.fit(
                network, parts, Optim.model_validate(optim.model_dump()), "recover", method=choice.recover_with,
                teacher=dense,
            )  # fmt: skip
        here.selection = {"select": here.recipe.evaluate.select, "selected_step": step}


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
    goals = {"ratio": ratio, "target_ms": target_ms, "target_gmacs": target_gmacs}
    given = {name: value for name, value in goals.items() if value is not None}
    choice = {**(prune or {}), **({} if criterion is None else {"criterion": criterion}), **given}
    if not isinstance(network, Network):
        further = {"folder": folder, "optim": optim}
        small = prune_foreign(network, example, data, prune=choice, loss=loss, run=run, further=further, show=show)
        return cast(Module, small)
    with allowing(trust):
        return _by_recipe(network, choice, data, loss, optim, run, folder, show=show)


def _by_recipe(
    network: Module, choice: Mapping[str, Any], data: Sequence[str] | Mapping[str, Any], loss: str | Mapping[str, Any],
    optim: Mapping[str, Any] | None, run: Mapping[str, Any] | None, folder: str | Path | None, *, show: bool,
) -> Module:  # fmt: skip
    """`prune` of a `Network`."""
    assert isinstance(network, Network)
    check_finite(network)
    sections = sections_of(data, "erm", loss, (optim or {}).get("steps", 1), optim, None)
    with TemporaryDirectory() as scratch:
        recipe = from_sections(**sections, prune=choice, run={**(run or {}), "folder": str(folder or scratch)})
        small = deepcopy(network)
        with frame(recipe, "prune") as here:
            parts = protocol.checked(protocol.split(recipe.data, recipe.run.seed), small, recipe.data)
            _recoverable(here, small, parts, _choice(recipe))
            found = cut(here, small, parts, _choice(recipe), show=show)
            recovered(here, small, parts, _choice(recipe), network)
            if folder:
                here.keep(small)
        if show:
            show_costs(*costs(network, small, recipe), found, network, small)
    return small.eval()
