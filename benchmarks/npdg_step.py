"""What style copies cost: a step of the algorithm ``dsp`` against a plain step on as many images.

Both steps run on the same Fast-SCNN in turn, in one process; each figure is the median over rounds of the ratio of two
neighbouring steps. A ``dsp`` step draws one copy of every image, whose style climbs the loss K times, and learns from
originals and copies; the plain step learns from as many images. Time is the processor time of one thread, which other
work on the machine does not lengthen. The style perturbation is as light as that of ``recipes/camvid_dusk_style.yaml``,
with random weights: they cost the same.

    python benchmarks/npdg_step.py [--quick] [--rounds N] [--height H] [--width W]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional as F

from hardy.algorithms.base import Algorithm
from hardy.algorithms.dsp import DSP
from hardy.algorithms.erm import ERM
from hardy.algorithms.style_vae import StyleVAE
from hardy.engine.hardware import fingerprint
from hardy.networks._create import create
from hardy.types import Batch

IMAGES = 6
CLIMBS = (0, 1, 2)


def pixel_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels, ignore_index=255)


def seconds(algorithm: Algorithm, batch: Batch) -> float:
    """Processor time of one forward and backward pass."""
    algorithm.zero_grad(set_to_none=True)
    start = time.process_time()
    torch.stack(list(algorithm(batch).values())).sum().backward()
    return time.process_time() - start


def drawn(count: int, size: tuple[int, int]) -> Batch:
    return Batch(torch.rand(count, 3, *size), torch.randint(0, 19, (count, *size)), torch.zeros(count).long())


def ratios(made: Callable[[int], Algorithm], plain: Algorithm, size: tuple[int, int], rounds: int) -> list[list[float]]:
    """For each K the rounds' [milliseconds, ratio to the plain step's]."""
    few, many = drawn(IMAGES, size), drawn(2 * IMAGES, size)
    algorithms = [made(climbs).train() for climbs in CLIMBS]
    found: list[list[list[float]]] = [[] for _ in CLIMBS]
    for turn in range(rounds + 1):
        for place, algorithm in enumerate(algorithms):
            base, copied = seconds(plain, many), seconds(algorithm, few)
            if turn:  # the first round warms up
                found[place].append([1e3 * copied, copied / base])
    return [[statistics.median(column) for column in zip(*rows, strict=True)] for rows in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds on smaller images: under 50 seconds")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--height", type=int, default=None)
    parser.add_argument("--width", type=int, default=None)
    options = parser.parse_args()
    rounds = options.rounds or (4 if options.quick else 15)
    size = (options.height or (96 if options.quick else 144), options.width or (128 if options.quick else 192))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = create("fast_scnn", "cityscapes19").train()
    with TemporaryDirectory() as folder:
        StyleVAE(network, pixel_loss).keep(Path(folder))
        found = ratios(
            lambda climbs: DSP(network, pixel_loss, style=folder, ascent=climbs), ERM(network, pixel_loss), size, rounds
        )

    print(f"fast_scnn, {IMAGES} images of {size[0]}x{size[1]} and a copy of each, one thread, {rounds} rounds\n")
    print(f"{'climbs K':>9}{'ms a step':>11}{'to plain':>10}")
    for climbs, (milliseconds, ratio) in zip(CLIMBS, found, strict=True):
        print(f"{climbs:>9}{milliseconds:>11.1f}{ratio:>10.3f}")
    print(f"{fingerprint()}\n")
    for climbs, (_, ratio) in zip(CLIMBS, found, strict=True):
        if climbs:
            print(f"figure npdg_step_k{climbs} {ratio:.3f} goal <={1.15 * (1 + climbs):.2f}")


if __name__ == "__main__":
    main()
