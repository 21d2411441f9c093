"""Hardy's training step against the same network, loss, optimiser and batches in a bare PyTorch loop.

The loops take the same batches, made once and kept in memory, and step copies of one network with the same optimiser;
they alternate in blocks of a few steps, each in a process and a thread of its own, and processor time is counted, so
that a noisy machine is noisy for all. The bare loop runs twice: as anyone writes it, and with the memory that it frees
kept in the process, as Hardy keeps it (`hardy.ops.kept_memory`). The figures are the medians over the rounds of Hardy's
time to that of each. At the end all networks must have the same weights, bit by bit: the loops do the same work.

    python benchmarks/loop.py [--quick]
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from operator import truediv
from statistics import median
from typing import Any

import torch

from hardy import create
from hardy.algorithms.erm import ERM
from hardy.engine.fit import Fit
from hardy.engine.optimiser import build, rate, set_rate
from hardy.losses.cross_entropy import CrossEntropy
from hardy.ops.kept_memory import kept_memory
from hardy.ops.tensors import checksum
from hardy.recipe import Optim, RunSection
from hardy.seed import seed_all
from hardy.timing.hardware import fingerprint
from hardy.types import Batch

BLOCK = 5
"""Steps that one loop makes before it is another's turn."""

KINDS = ["hardy", "kept", "bare"]

Case = tuple[str, tuple[int, int], int, dict[str, Any]]
"""Network, size of the images, images of a batch and options."""

CASES: list[Case] = [
    ("fast_scnn", (96, 192), 16, {}),
    ("tiny", (128, 256), 8, {}),
    ("encoder_decoder", (192, 256), 16, {"encoder": "tf_efficientnet_lite0", "decoder": "swiftnet"}),
]


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


def loop(kind: str, case: Case, asked: Connection) -> None:
    """The loop of one ``kind``, in a process of its own: makes as many steps as ``asked``, and answers with the
    processor time in milliseconds a step; asked for 0, with a checksum of the weights."""
    torch.set_num_threads(1)
    seed_all(0, case[0], 0)
    name, size, images, options = case
    network = create(name, "cityscapes19", **options).train().to(memory_format=torch.channels_last)
    algorithm = ERM(network, CrossEntropy(19))
    optim = Optim(name="adamw", steps=10**6, batch=images, lr=1e-3)
    data = batches(size, images)
    with nullcontext() if kind == "bare" else kept_memory():
        run: Callable[[int], object] = partial(_advance, bare(algorithm, optim, data))
        if kind == "hardy":
            place = RunSection(device="cpu", log_every=10**6, channels_last=True)
            run = Fit(algorithm, lambda start, *_: (data[s % len(data)] for s in count(start)), optim, place).run
        while wanted := asked.recv():
            began = time.process_time()
            run(wanted)
            asked.send(1e3 * (time.process_time() - began) / wanted)
    asked.send(checksum(network.state_dict(), {}))


def _advance(steps: Iterator[None], wanted: int) -> None:
    for _ in islice(steps, wanted):
        pass


def compare(case: Case, rounds: int) -> dict[str, list[float]]:
    """Milliseconds a step of each kind of loop, in ``rounds`` rounds."""
    pipes = {}
    for kind in KINDS:
        pipes[kind], other = Pipe()
        get_context("spawn").Process(target=loop, args=(kind, case, other), daemon=True).start()
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(rounds + 1):  # the first is not counted
        for kind in KINDS[:: -1 if turn % 2 else 1]:
            pipes[kind].send(BLOCK)
            times[kind].append(pipes[kind].recv())
    for pipe in pipes.values():
        pipe.send(0)
    sums = {kind: pipe.recv() for kind, pipe in pipes.items()}
    assert len({*sums.values()}) == 1, f"the loops do not do the same: {sums}"
    return {kind: found[1:] for kind, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 4 if parser.parse_args().quick else 10
    torch.set_num_threads(1)
    print("| network | size | batch | Hardy ms | bare, memory kept ms | bare ms | Hardy / memory kept | Hardy / bare |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    found = {}
    for case in CASES:
        name, size, images, options = case
        times = compare(case, rounds)
        ratios = [median(map(truediv, times["hardy"], times[other])) for other in KINDS[1:]]
        found[name] = ratios
        row = [options.get("encoder", name), f"{size[0]}x{size[1]}", str(images)]
        row += [f"{median(times[kind]):.0f}" for kind in KINDS] + [f"{ratio:.3f}" for ratio in ratios]
        print("| " + " | ".join(row) + " |")
    print(f"\n{fingerprint()}\n")
    print(f"figure loop_ratio {found['fast_scnn'][0]:.3f} goal <=1.03")
    print(f"figure loop_against_bare {found['fast_scnn'][1]:.3f} goal <=1.00")


if __name__ == "__main__":
    main()
