"""What a frame costs with every test-time method, in time and memory, beside the source network.

All methods run in one process, in turns, on random images one at a time, on random weights: they cost the same. Frames
of a method and of the source network alternate; each figure is the median over rounds of the ratio of their sums. Time
is the processor time of one thread, which other work does not lengthen. A round has ten frames of the methods that do
not do the same on each frame (``bn_domains`` moves its prototypes and ``dose`` scores an image on every tenth; ``dose``
replays one image on every tenth, for eight of a hundred), and fewer of the others. Memory is the peak of all tensors.
The light forms of ``cotta`` and ``dose`` are rows of their own; the last row is TENT under a guard with its
defaults: where the source network is sure of an image, as SwiftNet's random weights are, TENT does not run at all.

    python benchmarks/adapt.py [--quick] [--rounds N] [--height H] [--width W] [--networks fast_scnn ...]
"""

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from hardy.adaptation.base import TestTimeAdaptation
from hardy.engine.adapting import adapted
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.registry import ADAPTATIONS
from hardy.sections import Guard
from hardy.timing import memory
from hardy.timing.hardware import fingerprint

NETWORKS = {
    "fast_scnn": ("fast_scnn", {}),
    "swiftnet": ("swiftnet", {}),
    "segformer_b0": ("segformer", {"variant": "b0"}),
}
REPLAY = {"memory": {"replay_every": 10, "replayed": 1}}
ROWS: dict[str, tuple[str, Mapping[str, Any]]] = {
    **{name: (name, REPLAY if name == "dose" else {}) for name in ADAPTATIONS},
    "cotta light": ("cotta", {"views": "light"}),
    "dose light": ("dose", {"form": "light", **REPLAY}),
    "tent guarded": ("tent", {"guard": Guard()}),
}
"""The label of each row: its method and its options."""
PERIOD = 10
PERIODIC = {"bn_domains", "dose"}
"""Methods that do something more on every tenth frame."""


def rows(network: Network, size: tuple[int, int]) -> dict[str, TestTimeAdaptation]:
    """The methods by label, warmed up; those that do not adapt this network are left out."""
    found = {}
    for label, (name, options) in ROWS.items():
        given = torch.rand(2, 3, *size) if name == "eata" else None
        own = {key: value for key, value in options.items() if key != "guard"}
        try:
            live = adapted(network, name, own, 0, given, guard=options.get("guard"))
        except InputError:
            continue
        live.enter("one")
        for _ in range(PERIOD if name == "bn_domains" else 1):
            live(torch.rand(1, 3, *size))
        found[label] = live
    return found


def seconds(predict: Any, images: torch.Tensor) -> float:
    """Processor time of one frame."""
    start = time.process_time()
    predict(images)
    return time.process_time() - start


def source(network: Network, images: torch.Tensor) -> None:
    with torch.inference_mode():
        network(images)


def measured(network: Network, size: tuple[int, int], rounds: int, frames: int) -> dict[str, list[float]]:
    """For each row [milliseconds, ratio to the source network, MiB]; the first row is the source network."""
    network.eval()
    images = torch.rand(1, 3, *size)
    source(network, images)
    lives = rows(network, size)
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in lives}
    for _ in range(rounds):
        for label, live in lives.items():
            count = PERIOD if ROWS[label][0] in PERIODIC else frames
            alone, own = 0.0, 0.0
            for _ in range(count):
                images = torch.rand(1, 3, *size)
                alone += seconds(lambda given: source(network, given), images)
                own += seconds(live, images)
            times[label].append((own / count, alone / count))
    base = statistics.median(alone for each in times.values() for _, alone in each)
    found = {"(source network)": [1e3 * base, 1.0, memory.tensors(lambda: source(network, images), network, images)]}
    for label, each in times.items():
        ratio = statistics.median(own / alone for own, alone in each)
        live = lives[label]
        peak = memory.tensors(lambda live=live: live(images), live, images)
        found[label] = [1e3 * statistics.median(own for own, _ in each), ratio, peak]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round on smaller images: under 50 seconds")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--height", type=int, default=None)
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    size = (options.height or (64 if options.quick else 128), options.width or (64 if options.quick else 256))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"one image of {size[0]}x{size[1]} at a time, one thread, {rounds} rounds\n")
    print(f"{'network':<14}{'method':<18}{'ms a frame':>11}{'to source':>11}{'MiB':>8}")
    figures = []
    for name in options.networks:
        kind, choices = NETWORKS[name]
        table = measured(create(kind, "cityscapes19", **choices), size, rounds, 1 if options.quick else 3)
        for label, (milliseconds, ratio, peak) in table.items():
            print(f"{name:<14}{label:<18}{milliseconds:>11.1f}{ratio:>11.2f}{peak:>8.0f}", flush=True)
        costs = {label: ratio for label, (_, ratio, _) in table.items()}
        light = costs["dose light"]
        figures.append(f"figure adapt_bn_domains_{name} {costs['bn_domains']:.2f} goal <=1.10")
        figures.append(f"figure adapt_dose_light_to_full_{name} {light / costs['dose']:.2f} goal <=0.50")
        figures.append(f"figure adapt_dose_light_to_cotta_light_{name} {light / costs['cotta light']:.2f} goal <=1.00")
    print(f"\n{fingerprint()}\n", *figures, sep="\n")


if __name__ == "__main__":
    main()
