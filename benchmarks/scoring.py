"""What scoring costs: an observed step (forward, losses by domain, backward, collect) against a plain training step.

Both steps run on the same Fast-SCNN and the same images, in turn, in one process; each figure is the median over
rounds of the ratio of two neighbouring steps. Time is the processor time of one thread, which other work on the
machine does not lengthen. Taylor is measured with the images of one domain, IoR with those of 2, 3 and 6, with batch
statistics and with frozen batch norms.

    python benchmarks/scoring.py [--quick] [--rounds N] [--height H] [--width W]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.criteria.ior import IoR
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.units import find_units
from hardy.timing.hardware import fingerprint
from hardy.types import Batch

IMAGES = 12
DOMAINS = (1, 2, 3, 6)


def pixel_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels, ignore_index=255)


def plain_step(network: Network, batch: Batch) -> None:
    network.zero_grad(set_to_none=True)
    terms = network.losses(network.outputs(batch.images), batch.labels, pixel_loss)
    torch.stack(list(terms.values())).sum().backward()


def scored_step(network: Network, criterion: Criterion, batch: Batch) -> None:
    network.zero_grad(set_to_none=True)
    torch.stack(list(criterion.observe(batch).values())).sum().backward()
    criterion.collect()


def seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def frozen(network: Network) -> Network:
    """Training mode with batch norms that use their running statistics."""
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return network


def ratios(network: Network, size: tuple[int, int], rounds: int) -> dict[int, tuple[float, float]]:
    """For each number of domains the median milliseconds of a scored step and its median ratio to a plain one."""
    units = find_units(network)
    images, labels = torch.rand(IMAGES, 3, *size), torch.randint(0, 19, (IMAGES, *size))
    batches = {d: Batch(images, labels, torch.arange(IMAGES) % d) for d in DOMAINS}
    criteria = {d: (Taylor if d == 1 else IoR)(network, units, pixel_loss) for d in DOMAINS}
    times: dict[int, list[tuple[float, float]]] = {d: [] for d in DOMAINS}
    for turn in range(rounds + 1):
        for d in DOMAINS:
            plain = seconds(lambda d=d: plain_step(network, batches[d]))
            scored = seconds(lambda d=d: scored_step(network, criteria[d], batches[d]))
            if turn:  # the first round warms up
                times[d].append((scored, scored / plain))
    return {
        d: (1e3 * statistics.median(t for t, _ in pairs), statistics.median(r for _, r in pairs))
        for d, pairs in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds on smaller images: under 50 seconds")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--height", type=int, default=None)
    parser.add_argument("--width", type=int, default=None)
    options = parser.parse_args()
    rounds = options.rounds or (4 if options.quick else 15)
    size = (options.height or (96 if options.quick else 128), options.width or (192 if options.quick else 256))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = create("fast_scnn", "cityscapes19")
    results = {"train": ratios(network.train(), size, rounds), "frozen": ratios(frozen(network), size, rounds)}

    print(f"fast_scnn, {IMAGES} images of {size[0]}x{size[1]}, one thread, {rounds} rounds\n")
    print(f"{'norms':8}{'domains':>9}{'criterion':>11}{'ms a step':>11}{'to plain':>10}")
    for mode, found in results.items():
        for d, (milliseconds, ratio) in found.items():
            print(f"{mode:8}{d:>9}{'taylor' if d == 1 else 'ior':>11}{milliseconds:>11.1f}{ratio:>10.3f}")
    print(f"{fingerprint()}\n")
    for mode, goal in (("train", 1.6), ("frozen", 1.15)):
        found = results[mode]
        print(f"figure scoring_ior_{mode}_d6 {found[6][1]:.3f} goal <={goal}")
        print(f"figure scoring_ior_{mode}_d6_to_d2 {found[6][1] / found[2][1]:.3f} goal <=1.1")


if __name__ == "__main__":
    main()
