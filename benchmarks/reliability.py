"""How reliable the score of each criterion is, and whether IoR differs from Taylor, on the trained networks of a bed.

    python benchmarks/reliability.py --networks 'runs/beds/streets/cells/fast_scnn,seed=*'          # what is left to do
    python benchmarks/reliability.py --networks 'runs/beds/streets/cells/fast_scnn,seed=*' --list
    python benchmarks/reliability.py                                                                # the recorded table
    python benchmarks/reliability.py --quick                                                        # a short form

Nothing is trained: each pass scores every network once, on source images as ``hardy prune`` with the ``one_shot``
schedule and ``prune.scoring`` reads them. No image is read twice in a pass of ``--images`` images, so that the scores
of every other batch and of the batches between them come from different images. A pass gives a row for each weight of
IoR's variance; weight 0 is Taylor. Rows go to ``benchmarks/records/reliability.jsonl``, so that a stopped call goes on.
"""

import argparse
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path
from statistics import fmean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

import hardy
from _reliability_passes import ALONE, BY_NAME, PASSES, QUICK, WEIGHTS, Pass, Variant
from hardy import recipe as recipes
from hardy import records
from hardy.commands import train
from hardy.engine import protocol
from hardy.engine.prune import to_score
from hardy.engine.run_folder import Origin, origin_of
from hardy.engine.safeguards import DataView
from hardy.errors import InputError, nearest
from hardy.networks.base import Network
from hardy.ops.tensors import checksum
from hardy.pruning.agreement import kept_alike, rank_correlation
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.criteria.ior import IoR
from hardy.pruning.schedules.base import Work
from hardy.pruning.scoring import score_without_training
from hardy.pruning.shapes import Layers
from hardy.recipe import Prune, Recipe
from hardy.records import Record
from hardy.registry import CRITERIA, LOSSES
from hardy.timing.hardware import fingerprint
from hardy.types import Batch, Terms

ROOT = Path(__file__).parents[1]
STORE = Path(__file__).parent / "records" / "reliability.jsonl"
IMAGES = 512
LEFT = 0.5
"""The share of the GMACs at which the kept channels are compared."""

Scores = Mapping[str, Tensor]


class Several(Criterion):
    """Several variants of IoR, which collect the same gradients of every batch.

    Args:
        members: the variants.
    """

    def __init__(self, members: Sequence[IoR]) -> None:
        super().__init__(members[0].network, members[0].units, members[0].pixel_loss)
        self.members = members

    def observe(self, batch: Batch) -> Terms:
        """See `Criterion.observe`; the loss is constant, because the gradients are known then."""
        found = self.members[0].measured(batch)
        for member in self.members:
            member.add(*found)
        return {"risk": torch.zeros((), requires_grad=True)}

    def reset(self) -> None:
        """See `Criterion.reset`."""
        for member in self.members:
            member.reset()

    def scores(self) -> dict[str, Tensor]:
        """Those of the first."""
        return self.members[0].scores()


def networks(pattern: str) -> list[Path]:
    """The finished runs of a glob.

    Raises:
        InputError: for none.
    """
    found = [path for path in sorted(map(Path, glob(pattern))) if (path / "network.json").is_file()]
    if not found:
        raise InputError(f"--networks {pattern}: no finished run is there; give a glob of run folders")
    return found


def prepared(folder: Path, one: Pass, images: int) -> tuple[Work, list[Criterion], Recipe, int]:
    """What is scored, the criterion of each variant, the recipe with the batch of the pass, and the number of batches.

    Raises:
        InputError: for a folder without a recipe, and what `to_score` raises.
    """
    network, made = hardy.load(folder), origin_of(folder).recipe
    if made is None:
        raise InputError(f"{folder}: has no recipe, which names the images and the loss; give the folder of a run")
    optim = made.optim.model_copy(update={"batch": one.batch or made.optim.batch})
    data = made.data.model_copy(update={"cache": False})  # no image is read twice
    made = made.model_copy(update={"optim": optim, "data": data})
    choice = Prune(
        criterion=dict(one.variants[0].criterion),
        schedule="one_shot",
        target_gmacs=LEFT * _gmacs(network, made),
        round_to=1,
        scoring=None if one.name in WEIGHTS else dict(one.scoring),
    )
    view = DataView(protocol.split(made.data, made.run.seed), protocol.Settings.of(made))
    loss = LOSSES.build(made.loss.name, {"class_count": len(network.label_space)}, **made.loss.options)
    work = to_score(network, choice, view, pixel_loss=loss)
    criteria = [work.criterion, *(_like(work, variant) for variant in one.variants[1:])]
    if len(criteria) > 1:
        work = replace(work, criterion=Several([one for one in criteria if isinstance(one, IoR)]))
    return work, criteria, made, images // optim.batch


def _like(work: Work, variant: Variant) -> Criterion:
    """The criterion of a variant for the gates of ``work``."""
    criterion, options = work.criterion, {**variant.criterion, "gates": "unit"}
    supply = {"network": work.network, "units": work.units, "pixel_loss": criterion.pixel_loss}
    built: Criterion = CRITERIA.build(options.pop("name"), supply, **options)
    return built


def _gmacs(network: Network, made: Recipe) -> float:
    return Layers(network, (), made.data.size or made.data.crop).gmacs({})


def _row(work: Work, alpha: float | None, rivals: Scores | None) -> tuple[Scores, dict[str, Any]]:
    """The scores of a row, and the numbers about them."""
    criterion = work.criterion
    if alpha is not None:
        assert isinstance(criterion, IoR)
        criterion.alpha = alpha
    scores, halves = criterion.scores(), criterion.halves()
    kept = (work.units, work.goal, {}, work.limits)
    numbers: dict[str, Any] = dict(criterion.readings())
    if halves is not None:
        numbers["reliability"] = rank_correlation(*halves)
        if alpha in (None, 0.0, 1.0):  # several selections
            numbers["halves_kept"] = kept_alike(*halves, *kept)
    if rivals is not None:
        numbers["taylor_rank"] = rank_correlation(scores, rivals)
        numbers["taylor_kept"] = 1.0 if alpha == 0 else kept_alike(scores, rivals, *kept)
    return scores, numbers


def _record(origin: Origin, row: str, notes: dict[str, Any], cost: Mapping[str, float]) -> Record:
    """The record of a row; a criterion that reads no images has no reliability."""
    versions = {key: str(value) for key, value in fingerprint().to_json().items()}
    value, metric = notes.pop("reliability", None), "reliability"
    return Record(origin.digest, "score", origin.sources, row, origin.seed, metric, value, cost, versions, notes)


class Bench:
    """Scores the networks of a bed.

    Args:
        images: the number of images of a pass.
    """

    def __init__(self, images: int = IMAGES) -> None:
        self._images = images
        self._known: dict[tuple[Path, str], dict[str, Scores]] = {}

    def measure(self, folder: Path, one: Pass) -> list[Record]:
        """The records of all rows of a pass over the network in ``folder``.

        Raises:
            InputError: what `prepared` and the criterion raise.
        """
        began = time.process_time()
        work, criteria, made, batches = prepared(folder, one, self._images)
        score_without_training(work, batches)
        found: dict[str, tuple[Scores, dict[str, Any]]] = {}
        for criterion, variant in zip(criteria, one.variants, strict=True):
            each = made.optim.batch // len(made.data.sources) * variant.accumulate
            rivals = self._rivals(folder, variant, criterion)
            for row, alpha in variant.rows:
                found[row] = _row(replace(work, criterion=criterion), alpha, rivals)
                found[row][1]["domain_images"] = each
        for row, (scores, numbers) in found.items():
            if row.startswith("after/"):
                numbers["signal"] = signal(found[row.replace("after/", "images_8/")][0], scores, batches)
        self._known[folder, one.name] = {row: scores for row, (scores, _) in found.items()}
        read = batches * made.optim.batch if work.criterion.needs_data else 0
        cost = {"seconds": time.process_time() - began, "images": float(read)}
        print(f"{folder.name}: {one.name}, {cost['seconds']:.0f} s of one thread", flush=True)
        notes = {"network": named(folder), "asked": self._images}
        return [_record(origin_of(folder), row, {**notes, **numbers}, cost) for row, (_, numbers) in found.items()]

    def _rivals(self, folder: Path, variant: Variant, criterion: Criterion) -> Scores | None:
        """Taylor's scores with the same gates and images: for IoR from the same gradients."""
        if variant.alphas:
            return criterion.rivals()["taylor"]
        return None if variant.name == "taylor_unit" else self._scores(folder, "taylor_unit")["taylor_unit"]

    def _scores(self, folder: Path, name: str) -> dict[str, Scores]:
        """The scores of all rows of another pass; it is made if it was not made by this call."""
        if (folder, name) not in self._known:
            self.measure(folder, BY_NAME[name])
        return self._known[folder, name]


def named(folder: Path) -> str:
    """The checksum of the network in ``folder``."""
    return checksum(hardy.load(folder).state_dict(), {})[:12]


def signal(before: Scores, after: Scores, batches: int) -> float | None:
    """The share of a score that is not noise of the batches: the median over channels.

    Squares of n single batches have the mean ``mu^2 + s^2``, where s^2 is the variance over batches; the square of
    their mean is ``mu^2 + s^2 / n`` on average. So ``mu^2 / (mu^2 + s^2)`` is ``(n r - 1) / (n - 1)``, with r the ratio
    of the second to the first. For nothing but normal noise the mean of that is 0 and its median a little below: with
    eight batches -0.066 (from the median of Student's t with seven degrees of freedom).

    Args:
        before: scores from squares of single batches.
        after: scores from squares of means over the same batches.
        batches: n, at least 2.
    """
    shares = [((batches * after[name] / values - 1) / (batches - 1))[values > 0] for name, values in before.items()]
    every = torch.cat(shares)
    return float(every.median()) if len(every) else None


def text(found: Sequence[Record]) -> str:
    """The table in Markdown: a row for each that is recorded, mean and standard deviation over the networks."""
    head = ("criterion", "how it is scored", "images", "networks", "reliability", "kept by both halves")
    more = ("rank with Taylor", "kept as by Taylor", "variance's share", "signal")
    lines = [f"| {' | '.join([*head, *more])} |", "|---|---|" + "---:|" * (len(head) + len(more) - 2)]
    rows: dict[tuple[int, str], dict[str, Record]] = {}
    for record in found:
        rows.setdefault((record.notes["asked"], record.target), {})[record.notes["network"]] = record
    for images in sorted({images for images, _ in rows}):
        for variant in (variant for one in PASSES for variant in one.variants):
            for row, alpha in variant.rows:
                if own := list(rows.get((images, row), {}).values()):
                    twins = rows.get((images, row.replace("images_8/", "after/")), {})
                    lines.append(_line(variant, alpha, own, list(twins.values()) if "images_8/" in row else []))
    return "\n".join(lines)


def _line(variant: Variant, alpha: float | None, own: Sequence[Record], twins: Sequence[Record]) -> str:
    """A line of the table; ``twins`` have the share of the signal."""
    name = str(variant.criterion["name"])
    if alpha is not None:
        name = {0.0: "taylor", ALONE: "variance of `ior` alone"}.get(alpha, f"ior, alpha {alpha:g}")
    taylor, alone = alpha == 0 or variant.name == "taylor_unit", alpha in (None, 0.0, ALONE)
    notes = [record.notes for record in own]
    numbers = [
        _spread([record.value for record in own]),
        _spread([note.get("halves_kept") for note in notes], percent=True),
        "–" if taylor else _spread([note.get("taylor_rank") for note in notes]),
        "–" if taylor else _spread([note.get("taylor_kept") for note in notes], percent=True),
        "–" if alone else _share([note.get("variance_share") for note in notes]),
        _spread([record.notes.get("signal") for record in twins]),
    ]
    images = f"{own[0].cost['images']:.0f}" if own[0].cost.get("images") else "–"
    return f"| {' | '.join([name, variant.how, images, str(len(own)), *numbers])} |"


def _spread(values: Sequence[float | None], *, percent: bool = False) -> str:
    """``mean ± standard deviation``; a dash without values."""
    known = [100 * value if percent else value for value in values if value is not None]
    digits = ".1f" if percent else ".3f"
    moments = [fmean(known), *([stdev(known)] if len(known) > 1 else [])] if known else []
    return " ± ".join(f"{value:{digits}}" for value in moments) + (" %" if percent and known else "") or "–"


def _share(values: Sequence[float | None]) -> str:
    """``median (least to most)`` of shares that differ in their order of magnitude."""
    known = sorted(value for value in values if value is not None)
    return f"{median(known):.2g} ({known[0]:.2g} to {known[-1]:.2g})" if known else "–"


def run(folders: Sequence[Path], asked: Sequence[Pass], store: Path, images: int, minutes: float | None) -> None:
    """Measure what is not recorded, pass by pass; none starts after ``minutes``."""
    start, bench = time.monotonic(), Bench(images)
    for one, folder in left(folders, asked, store, images):
        if minutes is not None and time.monotonic() - start > 60 * minutes:
            break
        records.append(store, bench.measure(folder, one))


def left(folders: Sequence[Path], asked: Sequence[Pass], store: Path, images: int) -> list[tuple[Pass, Path]]:
    """The passes of which a row is not recorded, telling ones first, network by network."""
    done = {
        (record.notes["network"], record.target, record.notes["asked"])
        for record in (records.read(store) if store.exists() else [])
    }
    names = {folder: named(folder) for folder in folders}
    fitting = [some for one in asked if (some := one.fitting(images)) is not None]
    return [
        (one, folder)
        for one in fitting
        for folder in folders
        if any((names[folder], row, images) not in done for row in one.rows)
    ]


def chosen(names: Sequence[str]) -> list[Pass]:
    """The passes of these names; all without any.

    Raises:
        InputError: for an unknown name.
    """
    for name in names:
        if name not in BY_NAME:
            raise InputError(f"--only {name}: no such pass{nearest(name, BY_NAME)}; there are {', '.join(BY_NAME)}")
    return [one for one in PASSES if not names or one.name in names]


def quick(asked: Sequence[Pass]) -> str:
    """The table of a network trained for two steps, over 128 small images."""
    with TemporaryDirectory() as folder:
        short = [
            "optim.steps=2",
            "data.unseen=[]",
            "data.unseen_splits=[]",
            "evaluate.every=0",
            "evaluate.latency=false",
            "data.crop=[32,64]",
        ]
        streets = ["size=[32,64]", "train=70", f"cache_folder={folder}/drawn"]
        short += [f"data.datasets.streets.{word}" for word in streets]
        recipe = recipes.read(ROOT / "recipes/beds/streets.yaml", [*short, f"run.folder={folder}/run"])
        made, store = train.run(recipe, show=False), Path(folder) / "rows.jsonl"
        run([made], asked, store, 128, None)
        return text(records.read(store))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", metavar="GLOB", help="run folders of trained networks")
    parser.add_argument("--only", metavar="PASS,PASS", default="", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"about how many in a pass (default: {IMAGES})")
    parser.add_argument("--minutes", type=float, default=None, help="start no pass after this time")
    parser.add_argument("--list", action="store_true", help="only what is left to measure")
    parser.add_argument("--quick", action="store_true", help="few passes on a network of two steps, without a record")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    try:
        asked = chosen([name for name in given.only.split(",") if name])
        folders = networks(given.networks) if given.networks else []
        if given.list:
            print("\n".join(f"{folder.name}: {one.name}" for one, folder in left(folders, asked, STORE, given.images)))
            return
        if folders and not given.quick:
            run(folders, asked, STORE, given.images, given.minutes)
        some = asked if given.only else chosen(QUICK)
        print(quick(some) if given.quick else text(records.read(STORE)))
    except InputError as error:
        parser.exit(2, f"reliability.py: {error}\n")


if __name__ == "__main__":
    main()
