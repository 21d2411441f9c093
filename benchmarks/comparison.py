"""Does the interval of a comparison hold the true difference as often as it says? And what a table of arms looks like.

Nothing here was trained: the counts are drawn. Two networks see the same images; how hard an image is, and how much
better one network is on it, goes up and down along a drive, so that neighbouring frames are alike. The true difference
is that over 200,000 frames.

    python benchmarks/comparison.py [--quick]
"""

import argparse
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from hardy.commands._comparison import Compared
from hardy.counts import Counts
from hardy.records import Record
from hardy.report.pivot import Coordinates, coordinates
from hardy.report.resample import Images, bootstrap, images, score
from hardy.studies.study import read

CLASSES = ("road", "wall", "pole")
PIXELS = np.array([600, 350, 50])
"""Labelled pixels of each class in every image."""
DRIVES = ((100, 0.0, 1), (120, 0.8, 1), (120, 0.8, 20), (400, 0.8, 1), (400, 0.8, 20), (1000, 0.8, 20), (1000, 0.9, 20))
"""Frames, correlation of how hard two neighbouring ones are, and frames that are drawn together."""

STUDY = """
stages:
  dense:  {verb: train, recipe: dense.yaml}
  pruned: {verb: prune, recipe: pruned.yaml, after: dense}
grid:
  seed:   {key: run.seed, values: [0, 1, 2, 3, 4, 5]}
  method: {stages: pruned, key: prune.criterion, values: [first, second, third]}
comparison: {control: pruned first, blocks: {drive: 20}}
"""
BETTER = {"dense": 0.25, "first": 0.0, "second": 0.15, "third": 0.01}
GMACS = {"dense": 0.090, "first": 0.048, "second": 0.048, "third": 0.055}
SECONDS = {"first": 60.0, "second": 150.0, "third": 66.0}


def along(count: int, alike: float, draws: np.random.Generator) -> np.ndarray:
    """(count,) normal numbers, each correlated with the one before."""
    new = draws.standard_normal(count) * np.sqrt(1 - alike**2)
    found = np.empty(count)
    found[0] = draws.standard_normal()
    for at in range(1, count):
        found[at] = alike * found[at - 1] + new[at]
    return found


def matrices(logit: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Counts (N, 3, 3): of each class ``1 / (1 + exp(-logit))`` is right, and the next class is seen in the rest."""
    right = draws.binomial(PIXELS, 1 / (1 + np.exp(-(logit[:, None] + np.array([1.0, 0.5, -0.5])))))
    found = np.zeros((len(logit), 3, 3), np.int64)
    for label in range(3):
        found[:, label, label] = right[:, label]
        found[:, label, (label + 1) % 3] = PIXELS[label] - right[:, label]
    return found


def drive(count: int, alike: float, draws: np.random.Generator) -> tuple[dict[str, Images], dict[str, Images]]:
    """What two networks make of a drive; the first is better by 0.15 on average, and by more or less from place to
    place."""
    hard, better = along(count, alike, draws), 0.15 + 0.3 * along(count, alike, draws)
    names = [f"f{at}" for at in range(count)]
    arm, control = matrices(hard + better, draws), matrices(hard, draws)
    return {"drive": images(names, arm)}, {"drive": images(names, control)}


@cache
def truth(alike: float) -> float:
    """The difference over a drive that is as good as endless."""
    pair = drive(200_000, alike, np.random.default_rng(1))
    arm, control = (float(score("miou", CLASSES)(one["drive"].sums.sum(axis=0))) for one in pair)
    return arm - control


def coverage(count: int, alike: float, block: int, drives: int) -> float:
    """The share of drives of ``count`` frames whose interval holds the true difference."""
    taken, held = score("miou", CLASSES), 0
    for at in range(drives):
        pair = drive(count, alike, np.random.default_rng([2, at]))
        found = bootstrap([pair], taken, lengths={"drive": block}, resamples=1000, seed=at)
        held += found.low <= truth(alike) <= found.high
    return held / drives


def example() -> str:
    """The table of a study of three pruned arms and the dense network: six seeds, two unseen domains."""
    draws = np.random.default_rng(0)
    hard = {"drive/dusk": along(124, 0.8, draws), "photos/rain": along(100, 0.0, draws)}
    found, kept = [], {}
    for seed in range(6):
        dense = coordinates("dense", {"seed": str(seed)})
        others = [name for name in BETTER if name != "dense"]
        pruned = {name: coordinates("pruned", {"seed": str(seed), "method": name}) for name in others}
        for name, where in {"dense": dense, **pruned}.items():
            counts = {
                domain: Counts(
                    tuple(f"f{at}" for at in range(len(one))),
                    matrices(one - 0.5 + BETTER[name] + 0.03 * draws.standard_normal(), draws),
                    CLASSES,
                    "unseen",
                )
                for domain, one in hard.items()
            }
            kept[f"{name} {seed}"] = counts
            found += measured(name, seed, where, counts)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "drawn.yaml"
        file.write_text(STUDY, encoding="utf-8")
        places = list(dict.fromkeys(coordinates(one.notes["of"], one.notes["axes"]) for one in found))
        return "\n".join(Compared(read(file)[0], "drawn", places, found, kept.__getitem__).markdown()).strip()


def measured(name: str, seed: int, where: Coordinates, counts: Mapping[str, Counts]) -> list[Record]:
    """The records of a cell."""
    labels = {axis: text for axis, text in where if axis != "stage"}
    notes = {"of": dict(where)["stage"], "axes": labels, "cell": f"{name} {seed}"}
    taken = score("miou", CLASSES)
    by_domain = [float(taken(images(c.names, c.matrices).sums.sum(axis=0))) for c in counts.values()]
    values = {
        ("unseen", "miou"): float(np.mean(by_domain)),
        ("worst", "miou"): min(by_domain),
        ("intra", "miou"): by_domain[0] + 0.1,
    }
    cost = {"train_seconds": 300.0, "train_steps": 1500.0}
    values["cost", "gmacs" if name == "dense" else "gmacs_after"] = GMACS[name]
    values["cost", "milliseconds_p50_onnxruntime"] = 300 * GMACS[name]
    if name != "dense":
        cost = {"score_seconds": SECONDS[name], "score_steps": 100.0, "recover_seconds": 80.0, "recover_steps": 400.0}
    return [
        Record("", "", (), target, seed, metric, value, cost, notes=notes) for (target, metric), value in values.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer drives")
    drives = 100 if parser.parse_args().quick else 1000
    print(f"intervals that hold the true difference, of 95 % wanted, over {drives} drawn drives\n")
    print("frames  neighbours alike  drawn in blocks of  held")
    held = {}
    for count, alike, block in DRIVES:
        held[count, alike, block] = coverage(count, alike, block, drives)
        print(f"{count:>6}{alike:>18}{block:>20}{100 * held[count, alike, block]:>4.0f} %")
    print(f"\na table, of drawn counts\n\n{example()}\n")
    print(f"figure interval_of_images_held {held[100, 0.0, 1]:.2f} goal >=0.9")
    print(f"figure interval_of_a_long_drive_in_blocks_held {held[1000, 0.8, 20]:.2f} goal >=0.85")


if __name__ == "__main__":
    main()
