"""What style copies cost: a step of ``npdg`` and of the algorithm ``dsp`` against a plain step on as many images.

The steps run on one network in turn, in one process, first Fast-SCNN and then DeepLabV3+ with ResNet-18; each figure is
the median over rounds of the ratio of two neighbouring steps. A ``dsp`` step draws one copy of every image, whose style
climbs the loss K times; a step of sparse training with ``npdg`` draws K copies, one for each climb (with K = 0 one in
a random style, ``climb: [20, 0]``), and measures the sensitivities too. Both learn from originals and copies; the plain
step learns from as many images. Time is the processor time of one thread, which other work does not lengthen.
The style perturbation is that of ``recipes/camvid_dusk_style.yaml``, of a Fast-SCNN's first layers, with random
weights: they cost the same. Its decoder draws images at full size, which beside a network as light as Fast-SCNN is most
of what a step costs above a plain one.

    python benchmarks/npdg_step.py [--quick] [--rounds N] [--height H] [--width W]
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional as F

from hardy.algorithms.base import Algorithm
from hardy.algorithms.dsp import DSP
from hardy.algorithms.erm import ERM
from hardy.algorithms.style_vae import StyleVAE
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.pruning.criteria.npdg import NPDG
from hardy.pruning.units import find_units
from hardy.timing.hardware import fingerprint
from hardy.types import Batch, Terms

IMAGES = 6
NETWORKS = {
    "fast_scnn": ("fast_scnn", {}),
    "deeplabv3plus_resnet18": ("encoder_decoder", {"encoder": "resnet18", "decoder": "deeplabv3plus"}),
}
STEPS = (("dsp", 0), ("dsp", 1), ("dsp", 2), ("npdg", 0), ("npdg", 1), ("npdg", 2))
"""What is trained, and how many times styles climb."""


class Sparse(Algorithm):
    """A step of sparse training: the criterion's loss and its penalty."""

    def __init__(self, network: Network, style: str, climbs: int) -> None:
        super().__init__(network)
        chosen = {"copies": max(climbs, 1), "climb": (20.0, 1.0 if climbs else 0.0)}
        self.criterion = NPDG(network, find_units(network), pixel_loss, style=style, **chosen)
        self.criterion.strength = 1e-3

    def forward(self, batch: Batch) -> Terms:
        """The criterion's terms and its penalty."""
        terms = self.criterion.observe(batch)
        return {**terms, "sparsity": 1e-3 * self.criterion.penalty()}


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


def ratios(
    made: Sequence[tuple[Algorithm, int]], plain: Algorithm, size: tuple[int, int], rounds: int
) -> list[list[float]]:
    """For each algorithm, with how many copies it draws, the rounds' [milliseconds, ratio to the plain step's]."""
    few = drawn(IMAGES, size)
    found: list[list[list[float]]] = [[] for _ in made]
    for turn in range(rounds + 1):
        for place, (algorithm, copies) in enumerate(made):
            base, copied = seconds(plain, drawn((1 + copies) * IMAGES, size)), seconds(algorithm, few)
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
    rounds = options.rounds or (2 if options.quick else 9)
    size = (options.height or (64 if options.quick else 144), options.width or (96 if options.quick else 192))
    torch.set_num_threads(1)
    print(f"{IMAGES} images of {size[0]}x{size[1]} and their copies, one thread, {rounds} rounds\n")
    print(f"{'network':<24}step  climbs K  copies{'ms a step':>11}{'to plain':>10}")
    figures = []
    for name in NETWORKS:
        for (kind, climbs), copies, (milliseconds, ratio) in measured(name, size, rounds):
            print(f"{name:<24}{kind:<6}{climbs:>8}{copies:>8}{milliseconds:>11.1f}{ratio:>10.3f}")
            if climbs:
                figures.append(f"figure {kind}_step_k{climbs}_{name} {ratio:.3f} goal <={1.15 * (1 + climbs):.2f}")
    print(f"\n{fingerprint()}\n", *figures, sep="\n")


def measured(name: str, size: tuple[int, int], rounds: int) -> Iterator[tuple[tuple[str, int], int, list[float]]]:
    """For each of the steps of a network: which, how many copies it draws, its [milliseconds, ratio]."""
    torch.manual_seed(0)
    kind, choices = NETWORKS[name]
    network = create(kind, "cityscapes19", **choices).train()
    with TemporaryDirectory() as folder:
        StyleVAE(create("fast_scnn", "cityscapes19"), pixel_loss).keep(Path(folder))
        made = [
            (DSP(network, pixel_loss, style=folder, ascent=climbs).train(), 1)
            if kind == "dsp"
            else (Sparse(network, folder, climbs).train(), max(climbs, 1))
            for kind, climbs in STEPS
        ]
        found = ratios(made, ERM(network, pixel_loss), size, rounds)
    return zip(STEPS, [copies for _, copies in made], found, strict=True)


if __name__ == "__main__":
    main()
