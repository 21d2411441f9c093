"""``hardy train``: train a network, measure it on held-out and unseen domains, save it."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hardy.commands.input.in_memory import open_run, sections_of
from hardy.commands.input.words import adapt_words
from hardy.commands.output.costs import own_costs
from hardy.commands.output.printing import say, say_lineage, show_table
from hardy.commands.output.progress import terminal
from hardy.commands.output.unmeasured import refuse_unmeasured
from hardy.engine import artefact
from hardy.engine.evaluate import ScoreTable
from hardy.engine.protocol import Split
from hardy.engine.run import Run
from hardy.engine.run_files import START
from hardy.engine.stop import Stopped
from hardy.engine.teachers import Given
from hardy.errors import InputError
from hardy.networks.base import Network, refuse_plain
from hardy.recipe import Recipe
from hardy.trust import names_in

__all__ = ["run", "train"]


def run(recipe: Recipe, *, show: bool = True) -> Path:
    """Train as ``recipe`` describes, or resume a stopped run, and show a table; returns the run's folder.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used. If a domain cannot be read after
            training, the network is saved and the other domains are measured first.
        Stopped: after Ctrl-C or SIGTERM, after the checkpoint has been written.
    """
    if done := Run.finished(recipe, "train"):
        if show:
            say(f"{done}: this run is finished; give another run.folder to run it again")
        return done
    with Run.open(recipe, "train", terminal) as here:
        network = here.network()
        images = here.images(network)
        here.tune(network)
        here.fit(network, images, "train", report=say if show else None)
        table = save_and_measure(here, network, images)
    if here.main and show:
        show_table(
            f"{here.folder}: {type(network).__name__}, {network.label_space.name}{adapt_words(recipe.adapt)}", table
        )
        for remark in here.remarks:
            say(remark)
        say_lineage(str(here.folder), network)
    refuse_unmeasured(table, here.folder, recipe.adapt)
    return here.folder


def save_and_measure(here: Run, network: Network, images: Split) -> ScoreTable:
    """Save ``network``, measure it, and finish the run."""
    here.keep(network, measured=False)
    chosen = here.recipe.network
    in_memory = chosen.run is not None and Path(chosen.run).name == START
    name = type(network).__name__ if in_memory else chosen.noted
    tuner = {"tuner": here.recipe.tuner.name} if here.recipe.tuner else {}
    notes = {"network": name, **tuner, **here.selection}
    table = here.measure(network, images, "train", notes)
    here.record("train", images.sources, own_costs(network, here.recipe), notes)
    here.measure_agreement(network, images, "train", notes)
    here.measure_peers(images, "train", notes)
    here.keep(network)
    return table


def train(
    network: Network,
    *,
    data: str | Sequence[str] | Mapping[str, Any],
    algorithm: str | Mapping[str, Any] = "erm",
    teacher: Given | None = None,
    loss: str | Mapping[str, Any] = "cross_entropy",
    tuner: str | Mapping[str, Any] | None = None,
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
        teacher: for an algorithm that learns from a teacher: a network, a run's folder, an ONNX file with logits, or a
            recipe's ``teacher`` section.
        loss: a name of ``hardy list loss``, or ``{"name": ..., options}``.
        tuner: in the same form, of ``hardy list tuner``. It is attached first, and the rest of the network is frozen.
        steps: number of optimiser steps.
        optim: the rest of a recipe's ``optim`` section, such as ``{"lr": 0.05, "batch": 16}``.
        evaluate: a recipe's ``evaluate`` section.
        run: a recipe's ``run`` section, such as ``{"seed": 1}``.
        folder: for checkpoints, records, the given network (in ``start``) and the trained one; the same as
            ``run["folder"]``. Without a folder nothing is measured at the end and nothing is saved. If the folder has a
            finished run, its weights are loaded.
        trust: modules whose code may run if a file, such as a run of ``style_vae``, names it.

    Raises:
        InputError: for anything that cannot be used.
        Stopped: after Ctrl-C or SIGTERM; with a folder, ``network`` gets its original weights back, and the same call
            resumes.
    """
    refuse_plain(network)
    sections = sections_of(data, algorithm, loss, steps, optim, evaluate)
    if tuner is not None:
        sections["tuner"] = {"name": tuner} if isinstance(tuner, str) else tuner
    with open_run(network, "train", sections, folder=folder, run=run, trust=trust, teacher=teacher) as (here, kept):
        if here is None:
            assert kept is not None, "only a run with a folder is finished"
            artefact.restore(network, kept, trust=names_in([network.architecture, network.changes, tuner]))
            return network.eval()
        _fit(here, network, kept)
    return network.eval()


def _fit(here: Run, network: Network, kept: Path | None) -> None:
    """Train ``network`` in place; with a permanent folder ``kept``, also measure and save it."""
    restore = _restorer(network, tuned=here.recipe.tuner is not None)
    images = here.images(network)
    try:
        if kept and here.recipe.tuner:
            network.origin = artefact.origin(here.folder / START)
        here.tune(network)
        here.fit(network, images, "train")
    except (Stopped, InputError) as error:
        if here.recipe.tuner or (kept and isinstance(error, Stopped)):  # so that the same call can resume
            restore()
        raise
    if kept:
        refuse_unmeasured(save_and_measure(here, network, images), here.folder)


def _restorer(network: Network, *, tuned: bool) -> Callable[[], object]:
    """A function that restores the current state of ``network``, in place; with ``tuned`` also its modules."""
    if not tuned:
        state = {name: value.clone() for name, value in network.state_dict().items()}
        return lambda: network.load_state_dict(state)
    given = deepcopy(network)

    def restore() -> None:
        vars(network).clear()
        vars(network).update(vars(given))

    return restore
