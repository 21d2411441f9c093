"""What reading a batch of `streets` costs, compared with the training step on it: drawn each time, and kept on disk.

Batches of 12 images of 96 x 192 pixels of two domains, cut, mirrored and coloured as a recipe does by default, and
Fast-SCNN's step on such a batch: both in one thread, in turns, by processor time. With the cache every picture was
drawn before. The ratio is the loader's time to the step's; below 1, one worker on a core of its own is always ahead of
training.

    python benchmarks/reading.py [--quick]
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from hardy import create
from hardy.algorithms.erm import ERM
from hardy.data.label_spaces import find_label_space
from hardy.data.loader import training_batches
from hardy.data.sources import domains
from hardy.data.transforms import training
from hardy.engine.fit import Fit
from hardy.losses.cross_entropy import CrossEntropy
from hardy.recipe import Optim, RunSection
from hardy.timing.hardware import fingerprint
from hardy.types import Batch

SIZE, BATCH, PICTURES, BLOCK = (96, 192), 12, 60, 3


def reader(folder: Path | None) -> Iterator[Batch]:
    """Endless training batches; of pictures kept in ``folder``, which it fills first, where there is one."""
    options = {"size": SIZE, "train": PICTURES, "val": 0, "test": 0, "cache_folder": folder and str(folder)}
    found = domains(["streets/sim", "streets/day"], root=Path(), options={"streets": options})
    data = [(domain, domain.items("train")) for domain in found]
    for domain, items in data if folder else []:
        for item in items:
            domain.dataset.read(item)
    transform = training(SIZE, scale=(0.5, 2.0), flip=0.5, photometric=1.0)
    return training_batches(data, find_label_space("cityscapes19"), transform, batch=BATCH, seed=0)


def timed(turns: int, folder: Path) -> dict[str, float]:
    """Median milliseconds of processor time of a batch and of a step, over ``turns`` blocks of each."""
    drawn, kept = reader(None), reader(folder)
    batches = list(itertools.islice(kept, BLOCK))
    algorithm = ERM(create("fast_scnn", "cityscapes19").train(), CrossEntropy(19))
    place = RunSection(device="cpu", log_every=10**6)
    loop = Fit(algorithm, lambda *_: itertools.cycle(batches), Optim(steps=10**6, batch=BATCH), place)
    what = {
        "step": lambda: loop.run(BLOCK),
        "drawn": lambda: [next(drawn) for _ in range(BLOCK)],
        "kept": lambda: [next(kept) for _ in range(BLOCK)],
    }
    found: dict[str, list[float]] = {name: [] for name in what}
    for turn, name in itertools.product(range(turns + 1), what):
        began = time.process_time()
        what[name]()
        if turn:  # the first one warms up
            found[name].append(1e3 * (time.process_time() - began) / BLOCK)
    return {name: median(times) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer blocks")
    turns = 4 if parser.parse_args().quick else 20
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = timed(turns, Path(folder))
    print(f"Fast-SCNN, {SIZE[0]} x {SIZE[1]} pixels, a batch of {BATCH}: {found['step']:.1f} ms a training step\n")
    print(f"{'pictures':<10} {'ms/batch':>9} {'to the step':>12}")
    for name in ("drawn", "kept"):
        print(f"{name:<10} {found[name]:9.1f} {found[name] / found['step']:12.2f}")
    print(f"\n{fingerprint()}\n")
    print(f"figure reading_to_step_kept {found['kept'] / found['step']:.2f} goal <=0.5")


if __name__ == "__main__":
    main()
