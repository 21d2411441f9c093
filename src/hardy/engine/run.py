"""A run: a recipe that is executed in a folder which this process has locked.

It owns the folder, its lock, the completed recipe in it, its log and its records; `fit` writes checkpoints and resumes
from them. A verb of the command line is a short sequence of calls:

    with Run.open(recipe, "train") as run:
        network = run.network()
        images = run.images(network)
        run.fit(network, images, "train")
        run.measure(network, images, "train")
        run.keep(network)
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hardy import counts, curves, pictures, records
from hardy.algorithms.base import Algorithm, TextTable
from hardy.device import limit_threads, pick
from hardy.engine import adapting, agreement, artefact, changes, protocol, start, step_memory, teachers
from hardy.engine.evaluate import ScoreTable
from hardy.engine.fit import Log
from hardy.engine.log import logged
from hardy.engine.protocol import Settings, Split
from hardy.engine.provenance import provenance
from hardy.engine.run_files import PASSING, PEERS, START, holds_network
from hardy.engine.run_folder import finished, folder_of, locked, unused
from hardy.engine.safeguards import DataView
from hardy.engine.tracking import Tracking, tracking
from hardy.engine.unused import refuse_unused
from hardy.errors import InputError
from hardy.files import expanded
from hardy.networks.base import Network, PixelLoss
from hardy.networks.building import lineage
from hardy.networks.building.teacher import Teacher
from hardy.pruning.silent import kept_silent
from hardy.recipe import Method, Optim, Recipe
from hardy.records import Record
from hardy.registry import ALGORITHMS, LOSSES
from hardy.seed import seed_all

__all__ = ["Progress", "Run", "TargetValues", "lines"]

TargetValues = Sequence[tuple[str, str, float | None]]
"""(target, metric, value) of numbers to record."""

Progress = Callable[["Run", str, int], AbstractContextManager[Log]]
"""``progress(run, stage, steps)``: inside the block ``log(step, values)`` shows the progress of a stage; ``steps`` is 0
when their number is not known in advance."""

_log = logging.getLogger("hardy")


@contextmanager
def lines(run: "Run", stage: str, steps: int) -> Iterator[Log]:
    """A `Progress` that writes a line to the log for each call."""
    total = f"/{steps}" if steps else ""

    def log(step: int, values: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        _log.info("%s step %d%s: %s", stage, step, total, text)

    if run.shown:
        for row in (run.shown.columns, *run.shown.rows):
            _log.info("%s: %s", run.shown.title, " | ".join(row))
    yield log


@dataclass
class Run:
    """An open run; `open` makes it.

    Attributes:
        recipe: the completed recipe.
        folder: for all files of the run.
        versions: see `hardy.engine.provenance`.
        progress: shows the progress of a stage.
        main: True on the one process of a parallel run that writes files.
        cost: the seconds and steps used so far, and the estimated MiB of a training step, by name.
        selection: how the weights were selected, for the records.
        remarks: lines to show at the end.
        shown: what to show before the first step of the stage that begins; see `Algorithm.table`.
        tracking: the trackers of the recipe.
    """

    recipe: Recipe
    folder: Path
    versions: Mapping[str, str]
    progress: Progress = lines
    main: bool = True
    cost: dict[str, float] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    shown: TextTable | None = None
    tracking: Tracking = field(default_factory=Tracking)
    _loaded: teachers.Loaded | None = field(default=None, init=False, repr=False)
    _finish: Callable[[], None] | None = field(default=None, init=False, repr=False)
    _peers: Mapping[str, Network] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def finished(recipe: Recipe, verb: str) -> Path | None:
        """The folder of ``recipe`` if its run is finished, else None.

        Raises:
            InputError: when another recipe has run in it.
        """
        return finished(recipe, verb)

    @classmethod
    @contextmanager
    def open(cls, recipe: Recipe, verb: str, progress: Progress = lines) -> Iterator["Run"]:
        """Inside the block: a run in the recipe's folder, locked, with the completed recipe written and the log open.

        When the block raises an error, a folder that was made here and holds only these files is removed.

        Raises:
            InputError: when the folder cannot be written, is locked by another process, or holds the run of another
                recipe; for a key that has no effect, a tracker that is not installed, or a teacher that is this run
                itself.
        """
        refuse_unused(recipe, verb)
        folder = folder_of(recipe, verb)
        for choice in recipe.teachers:
            if choice.run and expanded(choice.run).resolve() == folder.resolve():
                raise InputError(f"teacher.run: {choice.run} is the folder of this run itself; name an earlier run")
        fresh = not folder.exists()
        pick(recipe.run.device)
        main = int(os.environ.get("RANK", "0")) == 0
        versions = provenance()
        with locked(folder, recipe) if main else nullcontext():
            try:
                with logged(folder, main=main), tracking(recipe, folder, main) as trackers:
                    if main:
                        recipe.write(folder / "recipe.yaml", versions)
                    limit_threads(recipe.run.threads)
                    yield cls(recipe, folder, versions, progress, main, tracking=trackers)
            except (InputError, OSError):
                if main and fresh and unused(folder):
                    shutil.rmtree(folder)
                raise

    @property
    def settings(self) -> Settings:
        """How images are read, trained on and measured."""
        return Settings.of(self.recipe)

    def network(self) -> Network:
        """The network that the recipe starts from: an earlier run's, or a new one with random weights by the seed.

        Raises:
            InputError: for weights that are not finite or have another checksum than the recipe names, and what loading
                raises.
        """
        seed_all(self.recipe.run.seed, "network")
        return start.network(self.recipe.network)

    def tune(self, network: Network) -> None:
        """Attach the recipe's tuner, if it names one, to ``network`` in place; its new weights depend on the seed.

        The next `fit` ends with what the tuner does after training.

        Raises:
            InputError: what `changes.attach` raises.
        """
        if self.recipe.tuner:
            seed_all(self.recipe.run.seed, "tuner")
            changes.attach(network, self.recipe.tuner)
            self._finish = changes.finishing(network)

    def images(self, network: Network) -> Split:
        """The images of the recipe, checked for ``network``.

        Raises:
            InputError: what `protocol.split`, `protocol.check_classes` and `protocol.checked` raise.
        """
        parts = protocol.split(self.recipe.data, self.recipe.run.seed)
        protocol.check_classes([*parts.val, *parts.unseen], network, self.recipe.evaluate)
        return protocol.checked(parts, network, self.recipe.data)

    def view(self, images: Split) -> DataView:
        """``images``, and how they are read and measured."""
        return DataView(images, self.settings)

    def pixel_loss(self, network: Network) -> PixelLoss:
        """The loss of one head, as the recipe chooses it."""
        loss = self.recipe.loss
        built: PixelLoss = LOSSES.build(loss.name, {"class_count": len(network.label_space)}, **loss.options)
        return built

    def teacher(self) -> Teacher | None:
        """The teacher that the recipe names, loaded once; None where it names none.

        Raises:
            InputError: what `hardy.engine.teachers.of_recipe` raises.
        """
        if self._loaded is None and self.recipe.teachers:
            self._loaded = teachers.of_recipe(self.recipe, self.folder)
        return self._loaded.teacher if self._loaded else None

    def learn_from(self, network: Network, *, keep: bool) -> None:
        """Use ``network``, which is in memory, as the teacher that the recipe names; ``keep`` saves it once."""
        self._loaded = teachers.of_memory(network, self.recipe, self.folder)
        if keep and self.main:
            self._keep_once(network, teachers.FOLDER)

    def algorithm(
        self,
        network: Network,
        method: Method | None = None,
        teacher: Network | None = None,
        steps: int | None = None,
    ) -> Algorithm:
        """The algorithm ``method``, by default the recipe's, on ``network``, for ``steps``, by default the recipe's.

        An algorithm that needs a teacher gets the recipe's, or else ``teacher``, in the precision of the run.
        """
        chosen = method or self.recipe.algorithm
        steps = steps or self.recipe.optim.steps
        supply: dict[str, Any] = {"network": network, "pixel_loss": self.pixel_loss(network), "steps": steps}
        if teachers.needed_by(chosen):
            supply["teacher"] = self.teacher() or (Teacher(teacher) if teacher else None)
        built: Algorithm = ALGORITHMS.build(chosen.name, supply, **chosen.options)
        return built

    def fit(
        self,
        network: Network,
        images: Split,
        stage: str,
        *,
        optim: Optim | None = None,
        method: Method | None = None,
        teacher: Network | None = None,
        report: Callable[[str], object] | None = None,
    ) -> None:
        """Train ``network`` in place; it ends with the selected weights, and `selection` says how they were selected.

        Args:
            network: what is trained.
            images: the training images, and those that select the weights.
            stage: the name of the stage; each stage has its own random draws.
            optim: used instead of the recipe's.
            method: the algorithm, used instead of the recipe's.
            teacher: for an algorithm that learns from one, when the recipe names none.
            report: if given, called before the first step with a line that says how much memory a step takes.
        """
        settings = self.settings
        settings = Settings(settings.data, optim or settings.optim, settings.evaluate, settings.run)
        seed_all(self.recipe.run.seed, stage, "algorithm")
        algorithm = self.algorithm(network, method, teacher, settings.optim.steps)
        self.shown = algorithm.table()
        if report and self.main:
            self._estimate(algorithm, images, stage, settings, report)
        step = self.fit_algorithm(algorithm, images, stage, settings)
        if self._finish:
            self._finish()
        self._peers = algorithm.peers()
        if self.main:
            algorithm.keep(self.folder)
        self.selection = {"select": settings.evaluate.select, "selected_step": step, **algorithm.notes()}
        if self._loaded:
            self.selection |= self._loaded.notes
        if algorithm.trains_network:
            self._remember(network, algorithm, images, stage, method or self.recipe.algorithm, teacher)

    def _estimate(
        self, algorithm: Algorithm, images: Split, stage: str, settings: Settings, report: Callable[[str], object]
    ) -> None:
        """Estimate the memory of a step: a line for ``report``, a cost for the records, a warning if it is too big."""
        device = pick(settings.run.device)
        optim, data = settings.optim, settings.data
        few = data.unlabelled_batch or max(1, optim.batch // max(1, len(images.train)))
        memory = step_memory.estimate(
            algorithm if settings.run.sharding == "full" else algorithm.to(device),
            optim,
            settings.run,
            data.crop,
            domains=max(1, len(images.train)),
            unlabelled=few if images.unlabelled and algorithm.uses_unlabelled else 0,
        )
        if memory is not None:
            self.cost[f"{stage}_step_mib"] = round(memory.peak / step_memory.MIB, 1)
            report(str(memory))
            step_memory.warn_above(memory, step_memory.available(device))

    def _remember(
        self, network: Network, algorithm: Algorithm, images: Split, stage: str, method: Method, teacher: Network | None
    ) -> None:
        """Add to the lineage of ``network``, in place, what it learned from besides labelled images."""
        taught: Sequence[Mapping[str, Any]] = []
        if teachers.needed_by(method):
            default = [lineage.of_teacher(teacher, "this run", artefact.checksum(teacher))] if teacher else []
            taught = self._loaded.described if self._loaded else default
        folders = images.unlabelled if algorithm.uses_unlabelled else ()
        if taught or folders:
            counts = {domain.name: len(items) for domain, items in images.train}
            method = method.model_copy(update=algorithm.chosen())
            network.lineage = (*network.lineage, lineage.entry(stage, method, taught, counts, folders))

    def fit_algorithm(self, algorithm: Algorithm, images: Split, stage: str, settings: Settings) -> int:
        """Train the network of ``algorithm`` in place; returns the step whose weights were selected. Channels that
        pruning set to zero and could not cut out stay zero."""
        began = time.perf_counter()
        zero = kept_silent(algorithm.network) if algorithm.network.plan else nullcontext()
        with zero, self.progress(self, stage, settings.optim.steps) as log:
            step = protocol.fit(
                algorithm,
                images,
                settings,
                folder=self.folder,
                owner=f"{self.recipe.digest()}/{self.recipe.run.seed}/{stage}",
                stage=stage,
                log=log,
                validated=lambda at, score: self._validated(stage, at, score),
            )
        self.cost[f"{stage}_seconds"] = round(time.perf_counter() - began, 2)
        self.cost[f"{stage}_steps"] = settings.optim.steps
        return step

    def _validated(self, stage: str, step: int, score: float) -> None:
        _log.info("%s step %d: source validation %.4f", stage, step, score)
        self.tracking.log(stage, step, {"source validation": score})
        if self.main:
            curves.append(self.folder, stage, step, {"source validation": score})

    def measure(self, network: Network, images: Split, stage: str, notes: Mapping[str, Any]) -> ScoreTable:
        """Measure ``network`` on the held-out images of the sources and on the unseen domains, and record it.

        A domain that cannot be read is named in the table's ``failed``, and the others are measured. When the recipe
        has a section ``adapt``, a copy of the network adapts during the measurement, and the records say so.
        If the recipe asks for the counts of every image, or for pictures of the worst ones, they go to the run's
        folder (`hardy.counts`, `hardy.pictures`).
        """
        table = self._measured(network, images, stage, notes, self.settings)
        if self.main and self.recipe.evaluate.keep_counts:
            counts.write(self.folder, table.counts)
        if self.main and table.pictures.domains:
            pictures.write(
                pictures.place(self.folder, adapt.name if (adapt := self.recipe.adapt) else ""), table.pictures
            )
        return table

    def _measured(
        self, network: Network, images: Split, stage: str, notes: Mapping[str, Any], settings: Settings
    ) -> ScoreTable:
        """The table of ``network``, which is recorded."""
        pairs = [("source-val", part) for part in images.val] + [("unseen", part) for part in images.unseen]
        adapt = self.recipe.adapt
        table = protocol.measure(network, pairs, settings, tolerant=True, adapt=adapt)
        self.record(stage, images.sources, table.values(), {**notes, **adapting.notes(adapt)})
        return table

    def measure_agreement(self, network: Network, images: Split, stage: str, notes: Mapping[str, Any]) -> None:
        """Measure and record how often ``network`` predicts what the recipe's teacher predicts, if it learned from one.

        A line of `remarks` has the means over known and unseen domains. Domains that cannot be read are left out. A
        teacher that predicts something else, as `two_stage` allows, is not compared; the log says so.
        """
        if self._loaded is not None and agreement.comparable(network, self._loaded.teacher):
            found, said = agreement.measured(network, self._loaded.teacher, images, self.settings)
            self.record(stage, images.sources, found, notes)
            self.remarks += said

    def measure_peers(self, images: Split, stage: str, notes: Mapping[str, Any]) -> None:
        """Measure and record the networks that the last `fit` trained beside its network, and save them in `PEERS`.

        Their records have the stage ``STAGE/NAME``. A line of the log and of `remarks` has their scores.
        """
        choice = self.recipe.evaluate.model_copy(
            update={"keep_counts": False, "keep_worst": 0}
        )  # those are of the network itself
        for name, peer in self._peers.items():
            kind = peer.architecture.get("name") or type(peer).__name__
            marks = {**notes, "network": kind, "peer": name}
            table = self._measured(peer, images, f"{stage}/{name}", marks, replace(self.settings, evaluate=choice))
            if self.main:
                artefact.save(peer, self.folder / PEERS / name)
            scores = ("-" if score is None else f"{score:.4f}" for score in (table.intra, table.unseen))
            said = "{} ({}) was trained beside the network, which is kept: source-val {}, unseen {}; it is in {}"
            self.remarks.append(said.format(name, kind, *scores, self.folder / PEERS / name))
            _log.info("%s", self.remarks[-1])
        self._peers = {}

    def record(self, stage: str, sources: Sequence[str], values: TargetValues, notes: Mapping[str, Any]) -> None:
        """Append ``values`` to the run's records."""
        if not self.main:
            return
        self.tracking.scores(stage, values)
        digest, seed = self.recipe.digest(), self.recipe.run.seed
        new = [
            Record(digest, stage, tuple(sources), target, seed, metric, value, dict(self.cost), self.versions, notes)
            for target, metric, value in values
        ]
        records.append(self.folder / "records.jsonl", new, once=True)

    def keep(self, network: Network, *, measured: bool = True) -> None:
        """Save ``network`` in the folder; when it is ``measured``, the checkpoint and the best weights are removed.

        A run with a checkpoint is not `finished`: the next call measures its network.
        """
        if self.main:
            artefact.save(network, self.folder)
            if measured:
                self.remove_checkpoint()

    def keep_part(self, network: Network, part: str) -> None:
        """Save ``network`` in the sub-folder ``part``, so that a resumed run does not repeat the stage."""
        artefact.save(network, self.folder / part)

    def part(self, part: str, like: Network) -> Network | None:
        """The network that an earlier call made from ``like`` and saved in the sub-folder ``part``, None without one.

        The code of ``like`` is trusted.
        """
        saved = self.folder / part
        return artefact.like(saved, like) if holds_network(saved) else None

    def keep_start(self, network: Network) -> None:
        """Save ``network``, the network in memory that the run starts from, once and with all its weights."""
        if self.main:
            self._keep_once(network, START)

    def _keep_once(self, network: Network, part: str) -> None:
        """Save ``network``, with all its weights, in the sub-folder ``part``, unless it is there already."""
        folder = self.folder / part
        known = holds_network(folder) and (
            (artefact.saved_checksum(folder), artefact.saved_form(folder))
            == (artefact.checksum(network), artefact.form(network))
        )
        if not known:
            artefact.save(network, folder, complete=True)

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint and the best weights of the stage that ended; the next stage writes its own."""
        if self.main:
            for name in PASSING:
                (self.folder / name).unlink(missing_ok=True)
