"""Hardy's training step against the same network, loss, optimiser and batches in a bare PyTorch loop.

Both loops take the same batches, made once and kept in memory, and step two copies of one network with the same SGD;
they alternate in blocks of a few steps in one process and one thread, and processor time is counted, so that a noisy
machine is noisy for both. The figure is the median over the pairs of blocks of Hardy's time to the bare loop's. At
the end both networks must have the same weights, bit by bit: the two loops do the same work.

    python benchmarks/loop.py [--quick]
"""

import argparse
import time
from collections.abc import Iterator
from copy import deepcopy
from itertools import count
from statistics import median, quantiles

import torch

from hardy import create
from hardy.algorithms.erm import ERM
from hardy.engine.fit import Fit
from hardy.engine.optimiser import build, rate, set_rate
from hardy.losses.cross_entropy import CrossEntropy
from hardy.recipe import Optim, RunSection
from hardy.seed import seed_all
from hardy.timing.hardware import fingerprint
from hardy.types import Batch

BLOCK = 5
"""Steps that one loop makes before it is the other's turn."""


def batches(size: tuple[int, int], images: int, kept: int = 4) -> list[Batch]:
    """A few batches of noise."""
    drawn = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.rand(images, 3, *size, generator=drawn),
            torch.randint(0, 19, (images, *size), generator=drawn),
            torch.arange(images) % 2,
        )
        for _ in range(kept)
    ]


def bare(algorithm: ERM, optim: Optim, data: list[Batch]) -> Iterator[None]:
    """The loop anyone would write; one step per ``next``."""
    optimiser = build(algorithm, optim)
    algorithm.train()
    for step in count():
        batch = data[step % len(data)]
        seed_all(0, "train", step, 0)  # dropout must draw the same in both loops
        set_rate(optimiser, rate(optim, step))
        optimiser.zero_grad(set_to_none=True)
        loss = sum(algorithm(batch).values())
        loss.backward()
        optimiser.step()
        yield


def compare(name: str, size: tuple[int, int], images: int, pairs: int) -> tuple[float, float, float, float]:
    """Median seconds a step of both, and median and upper quartile of the ratios of ``pairs`` pairs of blocks."""
    optim = Optim(steps=10**6, batch=images, lr=0.01)
    data = batches(size, images)
    first = create(name, "cityscapes19").train()
    mine, theirs = (ERM(network, CrossEntropy(19)) for network in (first, deepcopy(first)))
    place = RunSection(device="cpu", log_every=10**6)
    loop = Fit(mine, lambda start, rank, processes: (data[s % len(data)] for s in count(start)), optim, place)
    other = bare(theirs, optim, data)
    turns: list[tuple[float, float]] = []
    for turn in range(pairs + 1):
        times = {}
        for whose in ("hardy", "bare") if turn % 2 else ("bare", "hardy"):
            began = time.process_time()
            if whose == "hardy":
                loop.run(BLOCK)
            else:
                for _ in range(BLOCK):
                    next(other)
            times[whose] = (time.process_time() - began) / BLOCK
        turns.append((times["hardy"], times["bare"]))
    for (key, value), twin in zip(first.state_dict().items(), theirs.network.state_dict().values(), strict=True):
        assert torch.equal(value, twin), f"{key} differs: the two loops do not do the same"
    ratios = [hardy / plain for hardy, plain in turns[1:]]
    return median(h for h, _ in turns[1:]), median(b for _, b in turns[1:]), median(ratios), quantiles(ratios, n=4)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pairs of blocks")
    pairs = 6 if parser.parse_args().quick else 24
    torch.set_num_threads(1)
    print("| network | size | batch | Hardy ms | bare ms | ratio | upper quartile |")
    print("|---|---|---:|---:|---:|---:|---:|")
    found = {}
    for name, size, images in (("fast_scnn", (128, 256), 8), ("tiny", (128, 256), 8)):
        mine, theirs, found[name], upper = compare(name, size, images, pairs)
        row = [name, f"{size[0]}x{size[1]}", str(images), f"{1e3 * mine:.1f}", f"{1e3 * theirs:.1f}"]
        print("| " + " | ".join([*row, f"{found[name]:.3f}", f"{upper:.3f}"]) + " |")
    print(f"\n{fingerprint()}\n")
    print(f"figure loop_ratio {found['fast_scnn']:.3f} goal <=1.03")


if __name__ == "__main__":
    main()
