"""``hardy prune``: remove what matters least, recover, measure before and after."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardy.commands._frame import Frame, finished, frame, from_sections, network_of
from hardy.commands._print import say, show_rows, show_table
from hardy.commands.train import sections_of, trained
from hardy.engine import artefact, protocol
from hardy.engine.bench import Comparison, Runtime, compare
from hardy.engine.prune import prune as operate
from hardy.engine.prune import rehearse
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops import cost
from hardy.recipe import Optim, Prune, Recipe

__all__ = ["prune", "run"]

_log = logging.getLogger("hardy")

Change = list[tuple[str, float, float]]
"""(what, before, after) of everything that pruning should make smaller."""


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
        dense = _dense(here, network, parts)
        network = _pruned(here, dense, parts, choice)
        recovered(here, network, parts, choice)
        notes = {
            "network": recipe.network.name or recipe.network.run, "criterion": choice.criterion.name,
            "ratio": choice.ratio, "schedule": choice.schedule.name, **here.selection,
        }  # fmt: skip
        table = here.measure(network, parts, "prune", notes)
        changes, comparisons = costs(dense, network, recipe)
        here.record("prune", parts.sources, cost_values(changes), notes)
        here.keep(network)
    if show:
        show_table(f"{here.folder}: {choice.ratio:.0%} of filters removed by {choice.criterion.name}", table)
        show_change(changes, comparisons)
    return here.folder


def _choice(recipe: Recipe) -> Prune:
    if recipe.prune is None:
        raise InputError(
            "recipe: hardy prune needs a prune section, such as prune: {criterion: {name: ior}, ratio: 0.5}"
        )
    return recipe.prune


def _dense(here: Frame, network: Network, parts: protocol.Split) -> Network:
    """The network before pruning: an earlier run's as it is, or a new one trained now and kept."""
    if here.recipe.network.run:
        return network
    kept = here.folder / "dense"
    if (kept / "network.json").exists():
        return artefact.load(kept)
    rehearse(
        network, _choice(here.recipe), parts, pixel_loss=here.pixel_loss(network), optim=here.recipe.optim,
        run=here.recipe.run,
    )  # fmt: skip
    trained(here, network, parts)
    artefact.save(network, kept)
    (here.folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return network


def _pruned(here: Frame, dense: Network, parts: protocol.Split, choice: Prune) -> Network:
    """The smaller network before its recovery, which is kept so that a stopped recovery need not score again."""
    kept = here.folder / "pruned"
    if (kept / "network.json").exists():
        return artefact.load(kept)
    network = deepcopy(dense)
    cut(here, network, parts, choice)
    artefact.save(network, kept)
    return network


def cut(here: Frame, network: Network, parts: protocol.Split, choice: Prune) -> None:
    """Score and remove, in place."""
    recipe = here.recipe
    with here.progress("score", 0) as log:
        surgery = operate(
            network, choice, parts, pixel_loss=here.pixel_loss(network), data=recipe.data, optim=recipe.optim,
            run=recipe.run, log=log,
        )  # fmt: skip
    here.cost["score_steps"] = float(surgery.pruned.steps)


def recovered(here: Frame, network: Network, parts: protocol.Split, choice: Prune) -> None:
    """Train the smaller network in place for ``choice.recovery`` steps."""
    if choice.recovery:
        optim = here.recipe.optim.model_copy(update={"steps": choice.recovery, "lr": choice.recovery_lr})
        step = here.fit(network, parts, Optim.model_validate(optim.model_dump()), "recover")
        here.selection = {"select": here.recipe.evaluate.select, "selected_step": step}


def costs(dense: Network, network: Network, recipe: Recipe) -> tuple[Change, list[Comparison]]:
    """Parameters, GMACs and measured milliseconds of both, the times taken in turns in one process."""
    size = recipe.data.size or recipe.data.crop
    changes: Change = [
        ("parameters", cost.parameters(dense), cost.parameters(network)),
        ("gmacs", cost.gmacs(dense, size), cost.gmacs(network, size)),
    ]
    runtimes: tuple[Runtime, ...] = (
        ("eager", "onnxruntime") if find_spec("onnxruntime") and find_spec("onnxscript") else ("eager",)
    )
    comparisons = []
    for runtime in runtimes:
        try:
            comparisons.append(compare(dense, network, size=size, runtime=runtime))
        except InputError as error:  # a user's module that cannot be exported is pruned all the same
            if runtime == "eager":
                raise
            _log.warning("not measured in %s: %s", runtime, error)
    for one in comparisons:
        changes.append((f"milliseconds_p50_{one.runtime}", one.before_p50, one.after_p50))
        changes.append((f"milliseconds_p95_{one.runtime}", one.before_p95, one.after_p95))
    return changes, comparisons


def cost_values(changes: Change) -> list[tuple[str, str, float]]:
    """(target, metric, value) of every cost, before and after."""
    before = [("cost", f"{name}_before", value) for name, value, _ in changes]
    return before + [("cost", f"{name}_after", value) for name, _, value in changes]


def _number(value: float) -> str:
    """Whole from a thousand up, four digits below."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def show_change(changes: Change, comparisons: Sequence[Comparison]) -> None:
    """Print costs before and after, and say plainly where the smaller network is not faster."""
    rows = [
        [name.replace("_", " "), _number(before), _number(after), f"{after / before:.2f}"]
        for name, before, after in changes
    ]
    size = "x".join(map(str, comparisons[0].size))
    show_rows(f"before and after pruning, batch 1 at {size}", ["cost", "before", "after", "ratio"], rows)
    hint = "; runtimes are slow on odd widths: try a larger prune.round_to"
    for one in comparisons:
        verdict = "faster" if one.faster else "NOT FASTER"
        say(f"{one.runtime}: {verdict}: takes {one.ratio:.2f} of the time (quartiles {one.low:.2f} to {one.high:.2f}, "
            f"{one.runs} pairs, {one.threads} threads){'' if one.faster else hint}")  # fmt: skip


def prune(
    network: Network,
    *,
    criterion: str | Mapping[str, Any] = "ior",
    data: Sequence[str] | Mapping[str, Any] = (),
    ratio: float = 0.5,
    prune: Mapping[str, Any] | None = None,
    loss: str | Mapping[str, Any] = "cross_entropy",
    optim: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    show: bool = True,
) -> Network:
    """A physically smaller copy of ``network``, in evaluation mode; ``network`` itself stays as it is.

    Args:
        network: from `hardy.create`, `hardy.load` or `hardy.wrap`.
        criterion: a name of ``hardy list criterion``, or ``{"name": ..., options}``.
        data: source domains such as ``["streets/sim", "streets/day"]``, or a recipe's ``data`` section.
        ratio: share of filters REMOVED, in (0, 1).
        prune: the rest of a recipe's ``prune`` section, such as ``{"schedule": "one_shot", "recovery": 200}``.
        loss: a name of ``hardy list loss``, or ``{"name": ..., options}``.
        optim: a recipe's ``optim`` section, such as ``{"batch": 8}``.
        run: a recipe's ``run`` section, such as ``{"seed": 1}``.
        folder: where checkpoints, records and the network go; without one nothing is kept on disk.
        show: measure and print parameters, GMACs and milliseconds before and after.

    Raises:
        InputError: for anything that cannot be used.
    """
    sections = sections_of(data, "erm", loss, (optim or {}).get("steps", 1), optim, None)
    chosen = {"name": criterion} if isinstance(criterion, str) else criterion
    with TemporaryDirectory() as scratch:
        recipe = from_sections(
            **sections, prune={**(prune or {}), "criterion": chosen, "ratio": ratio},
            run={**(run or {}), "folder": str(folder or scratch)},
        )  # fmt: skip
        small = deepcopy(network)
        with frame(recipe, "prune") as here:
            parts = protocol.checked(protocol.split(recipe.data, recipe.run.seed), small, recipe.data)
            cut(here, small, parts, _choice(recipe))
            recovered(here, small, parts, _choice(recipe))
            if folder:
                here.keep(small)
        if show:
            show_change(*costs(network, small, recipe))
    return small.eval()
