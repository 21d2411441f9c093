"""``hardy train``: train a network, measure it on held-out and unseen domains, save it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardy.commands._frame import Frame, finished, frame, from_sections, network_of
from hardy.commands._print import say, show_table
from hardy.commands._scores import refuse_unmeasured
from hardy.engine import artefact, protocol
from hardy.networks.base import Network
from hardy.recipe import Recipe
from hardy.trust import allowing

__all__ = ["run", "train"]


def run(recipe: Recipe, *, show: bool = True) -> Path:
    """Do what ``recipe`` says, going on where an earlier call stopped, and show a table; the run's folder.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used. When a domain cannot be read after
            training, the network is saved and the others are measured first.
        Stopped: after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    if done := finished(recipe, "train"):
        if show:
            say(f"{done}: this run is finished; give another run.folder to run it again")
        return done
    with frame(recipe, "train") as here:
        network = network_of(recipe)
        parts = protocol.checked(protocol.split(recipe.data, recipe.run.seed), network, recipe.data)
        trained(here, network, parts)
        here.keep(network, measured=False)
        table = here.measure(network, parts, "train", {"network": recipe.network.name, **here.selection})
        here.keep(network)
    if here.main and show:
        show_table(f"{here.folder}: {type(network).__name__}, {network.labels.name}", table)
    refuse_unmeasured(table, here.folder)
    return here.folder


def trained(here: Frame, network: Network, parts: protocol.Split) -> None:
    """Train ``network`` in place as the recipe of ``here`` says."""
    step = here.fit(network, parts, here.recipe.optim, "train")
    here.selection = {"select": here.recipe.evaluate.select, "selected_step": step}


def train(
    network: Network,
    *,
    data: Sequence[str] | Mapping[str, Any],
    algorithm: str | Mapping[str, Any] = "erm",
    loss: str | Mapping[str, Any] = "cross_entropy",
    steps: int = 1000,
    optim: Mapping[str, Any] | None = None,
    evaluate: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    trust: Sequence[str] = (),
) -> Network:
    """Train ``network`` in place on ``data`` and return it, in evaluation mode.

    Args:
        network: from `hardy.create`, `hardy.load` or `hardy.wrap`.
        data: source domains such as ``["streets/sim"]``, or the ``data`` section of a recipe.
        algorithm: a name of ``hardy list algorithm``, or ``{"name": ..., options}``.
        loss: likewise of ``hardy list loss``.
        steps: optimiser steps.
        optim: the rest of a recipe's ``optim`` section, such as ``{"lr": 0.05, "batch": 16}``.
        evaluate: a recipe's ``evaluate`` section.
        run: a recipe's ``run`` section, such as ``{"seed": 1}``.
        folder: where checkpoints, records and the trained network go, ``run["folder"]`` being the same; without one
            nothing is measured at the end or kept on disk.
        trust: modules whose code may run where a file, such as a run of ``style_vae``, names it.

    Raises:
        InputError: for anything that cannot be used.
        Stopped: after Ctrl-C or SIGTERM; with a folder, the same call goes on from there.
    """
    folder = folder or (run or {}).get("folder")
    if folder:
        artefact.check(network)
    sections = sections_of(data, algorithm, loss, steps, optim, evaluate)
    with TemporaryDirectory() as scratch, allowing(trust):
        recipe = from_sections(**sections, run={**(run or {}), "folder": str(folder or scratch)})
        with frame(recipe, "train") as here:
            parts = protocol.checked(protocol.split(recipe.data, recipe.run.seed), network, recipe.data)
            trained(here, network, parts)
            if folder:
                here.keep(network, measured=False)
                table = here.measure(network, parts, "train", {"network": type(network).__name__, **here.selection})
                here.keep(network)
                refuse_unmeasured(table, here.folder)
    return network.eval()


def sections_of(
    data: Sequence[str] | Mapping[str, Any],
    algorithm: str | Mapping[str, Any],
    loss: str | Mapping[str, Any],
    steps: int,
    optim: Mapping[str, Any] | None,
    evaluate: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A recipe's sections from what a Python caller says."""
    return {
        "data": data if isinstance(data, Mapping) else {"sources": list(data)},
        "algorithm": {"name": algorithm} if isinstance(algorithm, str) else algorithm,
        "loss": {"name": loss} if isinstance(loss, str) else loss,
        "optim": {**(optim or {}), "steps": steps},
        "evaluate": dict(evaluate or {}),
    }
