"""The frame of a run: its folder, its log, its progress on the terminal, its records."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hardy import records
from hardy.algorithms.base import Algorithm
from hardy.commands._log import LogFile
from hardy.commands._place import finished, folder_of, held, unused
from hardy.commands._provenance import provenance
from hardy.commands._scores import table_values
from hardy.commands._unused import refuse_unused
from hardy.data.labels import label_space
from hardy.device import limit_threads, pick
from hardy.engine import artefact, protocol
from hardy.engine.evaluate import Table
from hardy.engine.finished import PASSING
from hardy.engine.protocol import Split
from hardy.errors import InputError, nearest
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.ops.tensors import check_finite
from hardy.recipe import Method, Optim, Recipe, from_values
from hardy.records import Record
from hardy.registry import ALGORITHMS, LOSSES
from hardy.seed import seed_all

__all__ = ["Frame", "finished", "frame", "from_sections", "network_of", "provenance"]

_log = logging.getLogger("hardy")


def from_sections(**sections: Any) -> Recipe:
    """A checked recipe for a network that is already in memory, from nested sections."""
    return from_values({"network": {"run": "in memory"}, **sections}, origin="arguments")


def network_of(recipe: Recipe) -> Network:
    """The network a recipe begins with: an earlier run's, or a new one whose weights the run's seed draws."""
    choice = recipe.network
    seed_all(recipe.run.seed, "network")
    if choice.run:
        network = artefact.load(choice.run, classes=choice.classes)
        check_finite(network)
        return network
    assert choice.classes, "a network that is named has classes"
    return create(choice.name, label_space(choice.classes), weights=choice.weights, **choice.options)


@dataclass
class Frame:
    """One run under way.

    Attributes:
        recipe: the completed recipe.
        folder: where everything goes.
        console: where people read.
        versions: see `provenance`.
        cost: what the run has taken so far, by name.
        selection: how the weights kept were selected.
        main: False on all but one process of a parallel run; only that one writes.
    """

    recipe: Recipe
    folder: Path
    console: Console
    versions: Mapping[str, str]
    cost: dict[str, float] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    main: bool = True

    def pixel_loss(self, network: Network) -> Any:
        """The loss of one head, as the recipe chooses it."""
        return LOSSES.build(self.recipe.loss.name, {"class_count": len(network.labels)}, **self.recipe.loss.options)

    def algorithm(self, network: Network, method: Method | None = None, teacher: Network | None = None) -> Algorithm:
        """The algorithm ``method``, by default the recipe's, on ``network``."""
        chosen = method or self.recipe.algorithm
        supply = {"network": network, "pixel_loss": self.pixel_loss(network), "teacher": teacher}
        built: Algorithm = ALGORITHMS.build(chosen.name, supply, **chosen.options)
        return built

    def fit(
        self, network: Network, parts: Split, optim: Optim, stage: str, *,
        method: Method | None = None, teacher: Network | None = None,
    ) -> int:  # fmt: skip
        """Train ``network`` in place with a progress bar; the step whose weights were selected."""
        recipe = self.recipe
        seed_all(recipe.run.seed, stage, "algorithm")
        algorithm = self.algorithm(network, method, teacher)
        began = time.perf_counter()
        with self.progress(stage, optim.steps) as log:
            step = protocol.fit(
                network, parts, algorithm=algorithm, data=recipe.data, optim=optim, choice=recipe.evaluate,
                run=recipe.run, folder=self.folder, owner=f"{recipe.digest()}/{recipe.run.seed}/{stage}", stage=stage,
                log=log,
                told=lambda at, score: _log.info("%s step %d: source validation %.4f", stage, at, score),
            )  # fmt: skip
        if self.main:
            algorithm.keep(self.folder)
        self.cost[f"{stage}_seconds"] = round(time.perf_counter() - began, 2)
        self.cost[f"{stage}_steps"] = optim.steps
        return step

    @contextmanager
    def progress(self, stage: str, steps: int) -> Iterator[Any]:
        """``log(step, values)`` that moves a bar with the time left on a terminal and writes lines to the log; with 0
        ``steps`` nobody knows how many there will be."""
        trackers = _trackers(self.recipe.run.trackers, self.folder)
        before, after = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[terms]"))
        columns = (before, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), after)
        with Progress(*columns, console=self.console, disable=not (self.main and self.console.is_terminal)) as bar:
            task = bar.add_task(stage, total=steps or None, terms="")
            among = f"/{steps}" if steps else ""

            def log(step: int, values: Mapping[str, float]) -> None:
                text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
                bar.update(task, completed=step, terms=text)
                _log.info("%s step %d%s: %s", stage, step, among, text)
                for tracker in trackers:
                    tracker.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

            yield log
        for tracker in trackers:
            tracker.finish()

    def measure(self, network: Network, parts: Split, stage: str, notes: Mapping[str, Any]) -> Table:
        """Measure ``network`` on the held-out images of the sources and on the unseen domains, and record it.

        A domain that cannot be read is named in the table's ``failed``, and the others are measured.
        """
        pairs = [("source-val", part) for part in parts.val] + [("unseen", part) for part in parts.unseen]
        table = protocol.measure(
            network, pairs, self.recipe.data, self.recipe.evaluate, self.recipe.run, tolerant=True
        )  # fmt: skip
        self.record(stage, parts.sources, table_values(table), notes)
        return table

    def record(
        self, stage: str, sources: Sequence[str], values: Sequence[tuple[str, str, float]], notes: Mapping[str, Any]
    ) -> None:
        """Append (target, metric, value) triples to the run's records."""
        if not self.main:
            return
        digest, seed = self.recipe.digest(), self.recipe.run.seed
        lines = [
            Record(digest, stage, tuple(sources), target, seed, metric, value, dict(self.cost), self.versions, notes)
            for target, metric, value in values
        ]
        records.append(self.folder / "records.jsonl", lines, once=True)

    def keep(self, network: Network, *, measured: bool = True) -> None:
        """Save ``network`` in the folder; once it is ``measured``, the checkpoint and the selection that led to it go.

        A folder with a checkpoint is not `finished`: the next call measures.
        """
        if not self.main:
            return
        artefact.save(network, self.folder)
        if measured:
            for name in PASSING:
                (self.folder / name).unlink(missing_ok=True)


@contextmanager
def frame(recipe: Recipe, verb: str) -> Iterator[Frame]:
    """A `Frame` in the recipe's folder, the completed recipe written there and the log open.

    A folder that was made here and holds no more than these goes again when what happens inside is refused.

    Raises:
        InputError: when the folder cannot be written, is held by another process, or holds the run of another recipe;
            for a key that would have no effect.
    """
    refuse_unused(recipe, verb)
    folder = folder_of(recipe, verb)
    fresh = not folder.exists()
    pick(recipe.run.device)
    main = int(os.environ.get("RANK", "0")) == 0
    versions = provenance()
    with held(folder, recipe) if main else nullcontext():
        try:
            with _logging(folder, main):
                if main:
                    recipe.write(folder / "recipe.yaml", versions)
                limit_threads(recipe.run.threads)
                yield Frame(recipe, folder, Console(file=sys.stderr, highlight=False), versions, main=main)
        except (InputError, OSError):
            if main and fresh and unused(folder):
                shutil.rmtree(folder)
            raise


@contextmanager
def _logging(folder: Path, main: bool) -> Iterator[None]:
    """What happens inside goes to ``train.log`` in ``folder``, and warnings to the terminal as well."""
    handlers: list[logging.Handler] = [LogFile(folder / "train.log")] if main else []
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    if main:
        handlers.append(logging.StreamHandler())
        handlers[-1].setLevel(logging.WARNING)
    for handler in handlers:
        _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            _log.removeHandler(handler)
            handler.close()


def _trackers(names: Sequence[str], folder: Path) -> list[GeneralTracker]:
    """The started trackers of these names, such as ``tensorboard``, that write into ``folder``."""
    usable = [str(tracker.value) for tracker in get_available_trackers()]
    started = []
    for name in names:
        if name not in usable:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            raise InputError(
                f"run.trackers: {name!r} is not installed or not known{nearest(name, known)}; known are "
                f"{', '.join(known)}; installed here: {', '.join(usable) or 'none'}"
            )
        kind: Any = LOGGER_TYPE_TO_CLASS[name]
        tracker = kind("hardy", folder) if kind.requires_logging_directory else kind("hardy")
        tracker.start()
        started.append(tracker)
    return started
