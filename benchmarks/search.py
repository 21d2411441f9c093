"""Regularised evolution against random search at equal evaluations, on drawn streets at 64x128.

For each seed one set of shared weights is trained, and both methods try as many architectures on it within one budget
of milliseconds. What each found is scored on the held-out images that ranked it, on other images of the same domains,
and again after it was trained by itself; and it is measured against the budget. Every seed that is done is recorded in
``benchmarks/records/search.jsonl`` and not run again; ``--quick`` prints the table from there.

    python benchmarks/search.py [--seeds 0 1 2] [--quick]
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import hardy
from hardy import records
from hardy.data.label_spaces import find_label_space
from hardy.device import limit_threads
from hardy.engine import protocol
from hardy.engine.protocol import Settings
from hardy.engine.safeguards import DataView
from hardy.engine.search import Judge, kept_within, search
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.architectures.multipath import Architecture, content
from hardy.networks.base import Network
from hardy.recipe import Recipe, from_values
from hardy.records import Record
from hardy.searching.cost import every_part, parts
from hardy.searching.evolution import Proposer
from hardy.searching.sandwich import Sandwich
from hardy.searching.space import Space
from hardy.searching.supernet import Supernet
from hardy.seed import seed_all
from hardy.timing import layer_tables
from hardy.timing.hardware import fingerprint
from hardy.timing.priced import Bench, Priced

STORE = Path(__file__).parent / "records" / "search.jsonl"
SIZE, SPACE = (64, 128), Space(filters=6, layers=6, branches=2)
SOURCES = ("streets/sim", "streets/day")
METHODS = ("evolution", "random")
EVALUATIONS, POPULATION, SAMPLE = 200, 20, 5
STEPS, ALONE = 450, 300
SHARE = 0.3
"""Where the budget lies between what the parts of the fastest and of the largest architecture add up to."""


def recipe_of(seed: int) -> Recipe:
    """How weights are trained and images held out."""
    streets = {"size": list(SIZE), "train": 60, "val": 20, "test": 40, "seed": seed}
    return from_values(
        {
            "network": {"name": "fasterseg"},
            "data": {
                "sources": list(SOURCES),
                "datasets": {"streets": streets},
                "split": "given",
                "crop": list(SIZE),
                "photometric": 0.0,
                "cache": True,
                "check": False,
            },
            "optim": {"steps": STEPS, "batch": 8, "lr": 0.05},
            "evaluate": {"batch": 8},
            "run": {"seed": seed, "workers": 0, "device": "cpu", "threads": 1},
        }
    )


def run(seed: int, budget: float | None) -> list[Record]:
    """The records of one seed; ``budget`` as it was for other seeds, or None for a new one."""
    recipe, began = recipe_of(seed), time.process_time()
    label_space = find_label_space(recipe.network.classes)
    parts_of = protocol.split(recipe.data, seed)
    seed_all(seed, "network")
    supernet = Supernet(label_space, space=SPACE)
    view = DataView(parts_of, Settings.of(recipe))
    judge = Judge(supernet, view, reestimate=3, images=40)
    times = layer_tables.open_table("onnxruntime", torch.device("cpu"))
    if budget is None:
        times.fill(every_part(SPACE, SIZE, len(label_space)))
        ends = [
            sum(times[part] for part in parts(each, SIZE, len(label_space)))
            for each in (*SPACE.lightest(), SPACE.largest())
        ]
        budget = round((1 - SHARE) * min(ends) + SHARE * max(ends), 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench = Bench(SPACE, label_space, SIZE, "onnxruntime", torch.device("cpu"), times)
        prices = Priced(bench, folder / "latency.json")
        prices.prepare(budget, seed)
        last = recipe.evaluate.model_copy(update={"select": "last"})
        settings = Settings(recipe.data, recipe.optim, last, recipe.run)
        algorithm = Sandwich(supernet, CrossEntropy(len(label_space)))
        protocol.fit(algorithm, parts_of, settings, folder=folder, owner="benchmark", stage="supernet")
        shared, made = time.process_time() - began, []
        for method in METHODS:
            began = time.process_time()
            proposer = Proposer(SPACE, prices.predicted, budget, seed, method, POPULATION, SAMPLE)
            history = search(proposer, judge, EVALUATIONS, folder / f"{method}.jsonl")
            best, milliseconds, _ = kept_within(history, prices.milliseconds, budget)
            values = {
                "miou_held_out": best.score,
                "miou_other": measured(judge.network(best.architecture), parts_of, recipe),
                "miou_alone": measured(alone(best.architecture, recipe), parts_of, recipe),
                "predicted_ms": best.milliseconds,
                "measured_ms": milliseconds,
            }
            curve = [max(each.score for each in history[:count]) for count in range(10, EVALUATIONS + 1, 10)]
            notes = {
                "method": method,
                "budget_ms": budget,
                "evaluations": len(history),
                "best_after_tens": curve,
                "architecture": content(best.architecture),
            }
            cost = {"shared_seconds": round(shared, 1), "seconds": round(time.process_time() - began, 1)}
            made += recorded(recipe, values, cost, notes)
    return made


def recorded(recipe: Recipe, values: dict[str, float], cost: dict[str, float], notes: dict[str, Any]) -> list[Record]:
    versions = {name: str(value) for name, value in fingerprint().to_json().items()}
    return [
        Record(recipe.digest(), "search", SOURCES, "streets", recipe.run.seed, name, value, cost, versions, notes)
        for name, value in values.items()
    ]


def alone(architecture: Architecture, recipe: Recipe) -> Network:
    """``architecture`` trained by itself, from new weights."""
    seed_all(recipe.run.seed, "network")
    network = hardy.create("fasterseg", recipe.network.classes, arch=content(architecture))
    data, optim, place = (section.model_dump(mode="json") for section in (recipe.data, recipe.optim, recipe.run))
    chosen = {"optim": {**optim, "steps": ALONE}, "evaluate": {"select": "last"}}
    return hardy.train(network, data=data, steps=ALONE, run={**place, "folder": ""}, **chosen)


def measured(network: Network, parts_of: protocol.Split, recipe: Recipe) -> float:
    """The mean mIoU over the test images of the sources, which nothing was chosen by."""
    found = [("source-val", (domain, domain.items("test"))) for domain, _ in parts_of.train]
    return protocol.measure(network, found, Settings.of(recipe)).intra or 0.0


def text(found: Sequence[Record]) -> str:
    """The table and the figures."""
    cells = {(record.notes["method"], record.seed): {} for record in found}
    for record in found:
        cells[record.notes["method"], record.seed][record.metric] = record.value
    head = "method      seed   mIoU % held-out   other images   trained alone   ms predicted   measured   budget"
    budget = {record.seed: record.notes["budget_ms"] for record in found}
    lines = [head] + [
        f"{method:<12}{seed:>4}{100 * v['miou_held_out']:>18.2f}{100 * v['miou_other']:>15.2f}"
        f"{100 * v['miou_alone']:>16.2f}{v['predicted_ms']:>15.3f}{v['measured_ms']:>11.3f}{budget[seed]:>9.3f}"
        for (method, seed), v in sorted(cells.items())
    ]
    seeds = sorted(budget)

    def ahead(metric: str) -> list[float]:
        return [100 * (cells["evolution", seed][metric] - cells["random", seed][metric]) for seed in seeds]

    for metric in ("miou_held_out", "miou_other", "miou_alone"):
        apart = ahead(metric)
        won = sum(each > 0 for each in apart)
        lines.append(
            f"evolution less random, {metric}: {fmean(apart):+.2f} points, ahead on {won} of {len(apart)} seeds"
        )
    made, count = found[0].versions, found[0].notes["evaluations"]
    off = max(abs(v["predicted_ms"] / v["measured_ms"] - 1) for v in cells.values())
    within = fmean(v["measured_ms"] <= budget[seed] for (_, seed), v in cells.items())
    lines += [
        f"{count} evaluations each; one thread of {made['cpu']}, onnxruntime {made['onnxruntime']}, torch "
        f"{made['torch']}",
        "",
        f"figure search_evolution_less_random {fmean(ahead('miou_held_out')):.2f} goal >=0",
        f"figure search_share_within_budget {within:.2f} goal >=1",
        f"figure search_prediction_off {off:.3f} goal <=0.15",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="only print the table of what is recorded")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    limit_threads(1)
    found = records.read(STORE) if STORE.exists() else []
    for seed in () if given.quick else given.seeds:
        if seed not in {record.seed for record in found}:
            found += (new := run(seed, found[0].notes["budget_ms"] if found else None))
            records.append(STORE, new)
    print(text(found) if found else "nothing is recorded")


if __name__ == "__main__":
    main()
