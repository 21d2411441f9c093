"""Time and peak memory of a training step with every tuner, in one run.

ViT-S and EfficientNet-Lite2 are measured on the CPU, with a linear decoder and AdamW, in one thread: processor time,
the tuners in turn, so that a noisy machine is noisy for all; the ratio to tuning everything (``full``) is the median
over rounds. Peak memory is that of the profiler, and stands beside the estimate that ``hardy train`` gives. ViT-L is
measured in the same way on a GPU, with the time until it has finished and the peak of PyTorch's allocator. Without one
it is not run: its memory is the estimate, its time the floating-point operations of the products, both on tensors
without values.

Rein's step is that of its own part, all blocks of a ViT-S, forward and backward, against the formula written block by
block in the order of the paper's algorithm 1: with all axes as in the formula, one operation after the other.

    python benchmarks/tuning.py [--quick]
"""

import argparse
import copy
import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hardy
from hardy.algorithms.erm import ERM
from hardy.engine import changes
from hardy.engine.fit import Fit
from hardy.engine.step_memory import MIB, StepMemory, estimate
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.base import Network
from hardy.recipe import Optim, RunSection
from hardy.registry import TUNERS
from hardy.sections import Method
from hardy.timing.hardware import fingerprint
from hardy.timing.memory import tensors
from hardy.tuning._rein_tokens import ReinTokens
from hardy.types import Batch

ENCODERS = {
    "ViT-S": "vit_small_patch16_224",
    "Lite2": "tf_efficientnet_lite2",
    "ViT-L": "vit_large_patch16_224",
}
CPU, GPU = (RunSection(device=device, log_every=10**6) for device in ("cpu", "cuda"))


def batch(count: int, side: int) -> Batch:
    """Noise."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side, side, generator=drawn)
    return Batch(images, torch.randint(19, (count, side, side), generator=drawn), torch.zeros(count).long())


def networks(encoder: str) -> Iterator[tuple[str, Network]]:
    """(name, network) of tuning everything and of each tuner that takes this encoder."""
    torch.manual_seed(0)
    network = hardy.create("encoder_decoder", "cityscapes19", encoder=encoder, decoder="linear").train()
    for name in ("full", *TUNERS):
        tuned = copy.deepcopy(network)
        options = {"pointwise": True} if name in ("lora", "soma") and "efficientnet" in encoder else {}
        try:
            if name != "full":
                changes.attach(tuned, Method(name=name, **options))
        except InputError:
            continue
        yield name, tuned


def held(loop: Fit) -> int:
    """The bytes of the optimiser's state."""
    states = loop.optimiser.optimizer.state.values()
    return sum(value.nbytes for one in states for value in one.values() if isinstance(value, Tensor))


def seconds(loop: Fit, place: RunSection) -> float:
    """The time of one more step: of the processor, or until the GPU has finished."""
    began = time.process_time() if place is CPU else time.perf_counter()
    loop.run(1)
    if place is CPU:
        return time.process_time() - began
    torch.cuda.synchronize()
    return time.perf_counter() - began


def measured(title: str, count: int, side: int, rounds: int, place: RunSection) -> Iterator[list[str]]:
    """A row for each tuner."""
    data, loops = batch(count, side).to(torch.device(place.device)), {}
    optim = Optim(name="adamw", batch=count, lr=1e-5)
    for name, network in networks(ENCODERS[title]):
        loops[name] = Fit(ERM(network, CrossEntropy(19)), lambda *_: itertools.repeat(data), optim, place)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, loop in loops.items():
            took = seconds(loop, place)
            times[name] += [took] if turn else []
    peaks = {}
    for name, loop in loops.items():
        network = loop.algorithm.network
        loop.optimiser.zero_grad(set_to_none=True)
        peaks[name] = (
            tensors(lambda loop=loop: loop.run(1), network, data.images) * MIB + held(loop) + data.labels.nbytes
        )
    for name, loop in loops.items():
        memory = estimate(loop.algorithm, optim, place, (side, side))
        assert memory is not None
        trained = sum(value.numel() for value in loop.algorithm.parameters() if value.requires_grad)
        ratio = median(own / full for own, full in zip(times[name], times["full"], strict=True))
        yield [
            title,
            name,
            f"{trained / 1e6:.3f}",
            f"{1e3 * median(times[name]):.0f}",
            f"{ratio:.2f}",
            f"{peaks[name] / MIB:.0f}",
            f"{peaks[name] / peaks['full']:.2f}",
            f"{memory.peak / peaks[name]:.2f}",
        ]


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside the block no initial value is drawn: only shapes matter."""
    names = ("trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "xavier_uniform_")
    with patch.multiple(torch.nn.init, **dict.fromkeys(names, lambda value, *_, **__: value)):
        yield


def traced(algorithm: ERM, optim: Optim, side: int) -> tuple[StepMemory, int]:
    """The memory of a step, and the floating-point operations of its products; nothing is computed."""
    count = FlopCounterMode(display=False)
    forward, backward = ERM.forward, Tensor.backward

    def counted(self: ERM, data: Batch) -> Mapping[str, Tensor]:
        count.__enter__()
        return forward(self, data)

    def finished(self: Tensor, *args: object, **kwargs: object) -> None:
        backward(self, *args, **kwargs)
        count.__exit__(None, None, None)

    with patch.object(ERM, "forward", counted), patch.object(Tensor, "backward", finished):
        memory = estimate(algorithm, optim, CPU, (side, side))
    assert memory is not None
    assert memory.complete
    return memory, count.get_total_flops()


def large(count: int, side: int) -> dict[str, tuple[StepMemory, int]]:
    """What `traced` gives for ViT-L, all of it tuned and with Rein."""
    with undrawn():
        network = hardy.create("encoder_decoder", "cityscapes19", encoder=ENCODERS["ViT-L"], decoder="linear").train()
        found = {}
        for name in ("full", "rein"):
            if name == "rein":
                changes.attach(network, Method(name=name))
            found[name] = traced(ERM(network, CrossEntropy(19)), Optim(name="adamw", batch=count), side)
    return found


class PerLayer(nn.Module):
    """The formula of a block as it is written, in the order of algorithm 1, with the parameters of ``part``."""

    def __init__(self, part: ReinTokens) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, block: int) -> Tensor:
        """``x`` (B, 1 + n, c) refined."""
        part = self.part
        head, cells = x[:, :1], x[:, 1:]
        tokens = part.learnable_tokens_a[block] @ part.learnable_tokens_b[block]
        products = torch.einsum("bnc,mc->bnm", cells, tokens) / part.temperature
        shares = torch.softmax(products, dim=-1)
        values = part.mlp_token2feat(tokens[1:])
        mixed = torch.einsum("bnm,mc->bnc", shares[..., 1:], values)
        change = part.mlp_delta_f(mixed + cells)
        return torch.cat([head, cells + part.scale * change], dim=1)


def rein_step(rounds: int, *, count: int = 2, cells: int = 256, width: int = 384, depth: int = 12) -> float:
    """Our time for the refinements of ``depth`` blocks, forward and backward, to that of `PerLayer`; the median."""
    torch.manual_seed(0)
    ours = ReinTokens(depth, width, prefix=1)
    theirs = PerLayer(ours)
    x = torch.randn(count, 1 + cells, width)
    ratios, outputs = [], {}
    for turn in range(rounds + 1):
        times = {}
        for part in (ours, theirs) if turn % 2 else (theirs, ours):
            began = time.process_time()
            refined = x.clone().requires_grad_(True)
            for block in range(depth):
                refined = part(refined, block)
            refined.sum().backward()
            times[part], outputs[part] = time.process_time() - began, refined.detach()
        ratios += [times[ours] / times[theirs]] if turn else []
    torch.testing.assert_close(outputs[ours], outputs[theirs], rtol=1e-5, atol=1e-5)
    return median(ratios)


def estimated(count: int, side: int) -> Iterator[list[str]]:
    """The rows of `large`."""
    found = large(count, side)
    full, full_work = found["full"]
    for name, (memory, work) in found.items():
        values = [f"{memory.gradients / 4e6:.3f}", "–", f"{work / full_work:.2f} of the operations"]
        yield ["ViT-L", name, *values, f"{memory.peak / MIB:.0f}", f"{memory.peak / full.peak:.2f}", "–"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds on smaller images")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    count, side, rounds = (1, 64, 1) if quick else (2, 224, 7)
    there = torch.cuda.is_available()
    how = f"on {torch.cuda.get_device_name()}" if there else "estimated"
    print(f"{count} images of {side}x{side}, one thread, {rounds} rounds; ViT-L: 4 images of 512x512, {how}\n")
    print("| encoder | tuner | trained M | ms a step | to full | peak MiB | to full | estimate to measured |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    rows = [row for title in ("ViT-S", "Lite2") for row in measured(title, count, side, rounds, CPU)]
    rows += measured("ViT-L", 4, 512, rounds, GPU) if there else estimated(4, 512)
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"\n{fingerprint()}\n")
    worst = max(abs(float(row[-1]) - 1) for row in rows if row[-1] != "–")
    rein = next(row for row in rows if row[:2] == ["ViT-L", "rein"])
    print(f"figure memory_estimate_error {worst:.2f} goal <=0.15")
    print(f"figure rein_memory_vit_l {rein[6]} goal <=0.70")
    print(f"figure rein_{'time' if there else 'operations'}_vit_l {rein[4].split()[0]} goal <=0.85")
    print(f"figure rein_step_ratio {rein_step(3 if quick else 15):.3f} goal <=0.9")


if __name__ == "__main__":
    main()
