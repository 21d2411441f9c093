"""``hardy search``: find a fasterseg architecture within a budget of milliseconds on this machine."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from hardy.commands.output.printing import percent, say, show_rows
from hardy.commands.output.progress import terminal
from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.engine.protocol import Settings, Split
from hardy.engine.run import Run
from hardy.engine.search import Judge, SearchResult, kept_within
from hardy.engine.search import search as evaluate_architectures
from hardy.errors import InputError
from hardy.files import write_text
from hardy.networks.architectures.multipath import content
from hardy.networks.base import Network
from hardy.ops import cost
from hardy.recipe import Recipe, Search
from hardy.registry import NETWORKS
from hardy.searching.evolution import Proposer
from hardy.searching.sandwich import Sandwich
from hardy.searching.space import Space
from hardy.searching.supernet import Supernet
from hardy.seed import seed_all
from hardy.timing import layer_tables
from hardy.timing.priced import Bench, Priced
from hardy.timing.targets import place_of

__all__ = ["run"]

_log = logging.getLogger("hardy")


def run(recipe: Recipe, *, show: bool = True) -> Path:
    """Search as ``recipe`` describes, or resume a stopped search, and show the result; returns the run's folder.

    The folder contains:

    - ``architecture.json``, for ``network.arch`` of a recipe;
    - the found network with the shared weights that ranked it, for ``network.run``;
    - the largest network of the space, in ``largest``;
    - all evaluations, in ``search.jsonl``;
    - the measured times, in ``latency.json``.

    Raises:
        InputError: for anything in the recipe or the data that cannot be used, or a budget below the fastest network.
        Stopped: after Ctrl-C or SIGTERM.
    """
    choice = _choice(recipe)
    if done := Run.finished(recipe, "search"):
        if show:
            say(f"{done}: this search is finished; give another run.folder to search again")
        return done
    assert recipe.network.classes, "a named network has classes"
    label_space = find_label_space(recipe.network.classes)
    with Run.open(recipe, "search", terminal) as here:
        seed_all(recipe.run.seed, "network")
        space = Space(choice.filters, choice.layers, choice.branches)
        supernet = Supernet(label_space, space=space)
        images = here.images(supernet)
        judge = Judge(supernet, here.view(images), reestimate=choice.reestimate, images=choice.images)
        prices = _prices(here, label_space, space, choice)
        _train(here, supernet, images, choice)
        result = _find(here, prices, judge, choice)
        _keep_result(here, result, judge, prices, images.sources, show=show)
    return here.folder


def _choice(recipe: Recipe) -> Search:
    """The search section of ``recipe``.

    Raises:
        InputError: without that section, for a network or algorithm that a search cannot use, or several processes.
    """
    if recipe.search is None:
        raise InputError("recipe: hardy search needs a search section, such as search: {budget_ms: 20}")
    network = recipe.network
    usual = NETWORKS.describe("fasterseg").check({})
    if network.name != "fasterseg" or network.weights or network.options not in ({}, usual):
        raise InputError(
            "network: a search finds a fasterseg from scratch; give name: fasterseg and classes, without weights or "
            "other options"
        )
    if recipe.algorithm.name != "erm":
        raise InputError(
            f"algorithm: {recipe.algorithm.name} cannot train shared weights; leave algorithm out, and use it later to "
            "train the found network"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("search: it runs in one process; use several processes only to train the found network")
    return recipe.search


def _prices(here: Run, label_space: LabelSpace, space: Space, choice: Search) -> Priced:
    """The times of architectures; parts that are not yet in the table are measured now."""
    recipe = here.recipe
    device = place_of(choice.runtime, recipe.run)
    times = layer_tables.open_table(choice.runtime, device)
    size = recipe.data.size or recipe.data.crop
    prices = Priced(Bench(space, label_space, size, choice.runtime, device, times), here.folder / "latency.json")
    prices.prepare(choice.budget_ms, recipe.run.seed)
    return prices


def _train(here: Run, supernet: Supernet, images: Split, choice: Search) -> None:
    """Train the shared weights in place; a resumed search reads them from the checkpoint."""
    algorithm = Sandwich(supernet, here.pixel_loss(supernet), temperature=choice.temperature)
    last = here.recipe.evaluate.model_copy(update={"select": "last"})
    settings = Settings(here.recipe.data, here.recipe.optim, last, here.recipe.run)
    here.fit_algorithm(algorithm, images, "supernet", settings)


def _find(here: Run, prices: Priced, judge: Judge, choice: Search) -> SearchResult:
    """Evaluate architectures, and measure the time of the best ones.

    Raises:
        InputError: if no architecture is within the budget.
    """
    space = prices.bench.space
    proposer = Proposer(
        space, prices.predicted, choice.budget_ms, here.recipe.run.seed, choice.method, choice.population, choice.sample
    )
    with here.progress(here, "search", choice.evaluations) as log:
        history = evaluate_architectures(proposer, judge, choice.evaluations, here.folder / "search.jsonl", log)
    if not history:
        raise InputError(
            f"search.budget_ms: no architecture is predicted to take {choice.budget_ms:g} ms or less; raise it"
        )
    here.cost["evaluations"] = float(len(history))
    best, value, checked = kept_within(history, prices.milliseconds, choice.budget_ms)
    machine = prices.bench.times.machine
    size = "x".join(map(str, prices.bench.size))
    where = f"{choice.runtime}, {machine['device']}, {size}, {torch.get_num_threads()} threads"
    return SearchResult(best, value, choice.budget_ms, len(history), checked, where)


@dataclass(frozen=True)
class _Row:
    """A row of the final table."""

    network: Network
    score: float
    predicted: float
    gmacs: float


def _keep_result(
    here: Run, result: SearchResult, judge: Judge, prices: Priced, sources: tuple[str, ...], *, show: bool
) -> None:
    """Write the architecture and the networks, record the result, and show it."""
    recipe, largest = here.recipe, prices.bench.space.largest()
    assert recipe.search is not None
    meta = {
        **result.meta(),
        "runtime": recipe.search.runtime,
        "device": prices.bench.times.machine["device"],
        "size": list(prices.bench.size),
        "method": recipe.search.method,
        "seed": recipe.run.seed,
        "recipe": recipe.digest(),
    }
    rows = {
        name: _Row(judge.network(architecture).cpu(), score, prices.predicted(architecture), prices.gmacs(architecture))
        for name, architecture, score in (
            ("found", result.best.architecture, result.best.score),
            ("largest", largest, judge(largest)),
        )
    }
    notes = {"method": recipe.search.method, "budget_ms": result.budget, "met": result.met, "where": result.where}
    values = [("cost", "milliseconds_measured", result.milliseconds)]
    for name, row in rows.items():
        values += [
            ("intra" if name == "found" else name, "miou", row.score),
            ("cost", f"gmacs_{name}", row.gmacs),
            ("cost", f"parameters_{name}", float(cost.parameters(row.network))),
            ("cost", f"milliseconds_predicted_{name}", row.predicted),
        ]
    here.record("search", sources, values, notes)
    write_text(
        here.folder / "architecture.json", json.dumps(content(result.best.architecture, **meta), indent=1) + "\n"
    )
    here.keep_part(rows["largest"].network, "largest")
    here.keep(rows["found"].network)
    _log.info("%s", result)
    if show:
        columns = ["", "mIoU % with shared weights", "ms predicted", "ms measured", "GMACs", "parameters"]
        show_rows(
            f"{here.folder}: architecture.json", columns, [_line(name, row, result) for name, row in rows.items()]
        )
        say(str(result))


def _line(name: str, row: _Row, result: SearchResult) -> list[str]:
    measured = f"{result.milliseconds:.4g}" if name == "found" else "–"
    numbers = [f"{row.predicted:.4g}", measured, f"{row.gmacs:.3f}", f"{cost.parameters(row.network):,}"]
    return [name, percent(row.score), *numbers]
