"""A step of distillation against the sum of its parts: a step without a teacher, and the teacher's forward pass.

The student is Fast-SCNN, the teacher an EfficientNet-Lite2 with a DeepLabV3+ decoder, both with random weights, which
cost the same. Three things take turns in one process and one thread on the same batch: a step of ``erm``, the
teacher's forward pass without gradient, and a step of ``distillation``. Processor time is counted, and the least of
each is taken: what other processes do only adds to it. The figure is the ratio of the third to the sum of the first
two, with the default losses; its share of the measurement of gradients, made every 50 steps, is in it. Then each loss
alone. The peak is of all tensors of a step: weights, gradients, activations.

    python benchmarks/distillation.py [--quick]
"""

import argparse
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch

from hardy import create
from hardy.algorithms.base import Algorithm
from hardy.algorithms.distillation import Distillation
from hardy.algorithms.erm import ERM
from hardy.engine.optimiser import build
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.base import Network
from hardy.networks.building.teacher import Teacher
from hardy.recipe import Optim
from hardy.registry import ALGORITHMS, DISTILLATIONS
from hardy.seed import seed_all, seeded
from hardy.timing.hardware import fingerprint
from hardy.timing.memory import tensors
from hardy.types import Batch

CLASSES = 19


def networks() -> tuple[Network, Teacher]:
    """The student, and its teacher."""
    with seeded(0, "distillation"):
        student = create("fast_scnn", "cityscapes19")
        teacher = create("encoder_decoder", "cityscapes19", encoder="tf_efficientnet_lite2", decoder="deeplabv3plus")
    return student.train(), Teacher(teacher, "fp32")


def noise(size: tuple[int, int], images: int) -> Batch:
    """A batch of noise."""
    drawn = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (images, *size), generator=drawn)
    return Batch(torch.rand(images, 3, *size, generator=drawn), labels, torch.zeros(images, dtype=torch.long))


def stepper(algorithm: Algorithm, batch: Batch) -> Callable[[], None]:
    """A function that makes one training step."""
    optimiser = build(algorithm.train(), Optim(lr=1e-4))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(algorithm(batch).values())).sum().backward()
        optimiser.step()

    return step


def spent(run: Callable[[], object]) -> float:
    """Seconds of processor time of one call."""
    began = time.process_time()
    run()
    return time.process_time() - began


class Bench:
    """The student's step and the teacher's pass on one batch, and what is compared with them.

    Args:
        size: (H, W) of the images.
        images: per batch.
    """

    def __init__(self, size: tuple[int, int], images: int) -> None:
        self.student, self.teacher = networks()
        self.batch = noise(size, images)
        self.plain = stepper(ERM(deepcopy(self.student), CrossEntropy(CLASSES)), self.batch)

    def row(self, name: str, losses: Mapping[str, Any], turns: int) -> tuple[float, str]:
        """The ratio of a step with ``losses``, and the line of the table."""
        seed_all(0, "algorithm")
        made = Distillation(deepcopy(self.student), CrossEntropy(CLASSES), self.teacher, losses=losses)
        step = stepper(made, self.batch)

        def at(number: int) -> Callable[[], None]:
            """``step`` as that of this number; the first measures gradients."""

            def run() -> None:
                made.steps.fill_(number)
                step()

            return run

        runners = [self.plain, lambda: self.teacher.outputs(self.batch.images), at(1), at(0)]
        found: list[list[float]] = [[] for _ in runners]
        for turn in range(turns + 1):
            for index in range(len(runners))[:: 1 if turn % 2 else -1]:
                found[index].append(spent(runners[index]))
        plain, forward, own, measuring = (min(values[1:]) for values in found)  # the first turn warms up
        extra = max(0.0, measuring - own) / made.balance_every
        ratio = (own + extra) / (plain + forward)
        peak = tensors(at(1), made, self.batch.images)
        numbers = [f"{1e3 * seconds:.0f}" for seconds in (plain, forward, own)]
        return ratio, "| " + " | ".join([name, *numbers, f"{1e3 * extra:.1f}", f"{ratio:.3f}", f"{peak:.0f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller images, fewer turns")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    size, images, turns = ((128, 256), 2, (4, 1)) if quick else ((256, 512), 4, (10, 3))
    bench = Bench(size, images)
    print(f"{size[0]}x{size[1]}, {images} images a batch")
    print("| losses | erm ms | teacher ms | step ms | measuring ms a step | ratio | peak MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    options = {option.name: option.default for option in ALGORITHMS.describe("distillation").options}
    figure, line = bench.row("default", options["losses"], turns[0])
    print(line)
    for name in DISTILLATIONS:
        print(bench.row(name, {name: {}}, turns[1])[1])
    print(f"\n{fingerprint()}\n")
    print(f"figure distillation_ratio {figure:.3f} goal <=1.10")


if __name__ == "__main__":
    main()
