"""How much of the saved work becomes saved time: half of the filters, or half of the work, removed; onnxruntime.

Filters go by their l2 norm, the same share of each layer, widths multiples of 8; the weights are untrained, time does
not depend on them. Once half of the filters go, once as many as it takes to halve the work (multiply-accumulates). Work
and time are of the whole network from image to classes, one thread, in turns with the dense one in one process.
``ratio`` is speed-up by reduction of the work, 1 where time falls as the work does; ``layers`` is the same for the sum
of the convolutions, so what it has beyond ``ratio`` is lost to resizing, argmax and the like. ``predicted`` is what the
table of layer times and the two ends measured say beforehand. Fast-SCNN is measured twice: with classes at full size,
and as ``hardy export --upsample none`` writes it, with classes at its own stride.

    python benchmarks/speedup.py [--quick]
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator

import torch

import hardy
from _cut import cut
from hardy.deployment.epilogue import Upsample
from hardy.ops import cost
from hardy.pruning.cost_goal import CostGoal
from hardy.pruning.goal import Goal, Ratio
from hardy.pruning.select import Limits
from hardy.pruning.shapes import Layers, widths_left
from hardy.pruning.units import find_units
from hardy.timing.hardware import fingerprint
from hardy.timing.layer_tables import open_table
from hardy.timing.payoff import reasons, spent
from hardy.timing.targets import Timed, Turns

NETWORKS: dict[str, tuple[str, dict[str, str], Upsample]] = {
    "fast_scnn": ("fast_scnn", {}, "full"),
    "fast_scnn_own_stride": ("fast_scnn", {}, "none"),
    "swiftnet": ("swiftnet", {}, "full"),
    "deeplabv3plus_resnet18": ("encoder_decoder", {"encoder": "resnet18", "decoder": "deeplabv3plus"}, "full"),
}
LIMITS = Limits("layer", 8, 8)
CPU = torch.device("cpu")


def measure(name: str, size: tuple[int, int], quick: bool) -> Iterator[tuple[str, float, list[str]]]:
    """For each way to prune one network: the figure's name, the ratio, the lines to print."""
    torch.manual_seed(0)
    kind, options, upsample = NETWORKS[name]
    dense = hardy.create(kind, classes="camvid11", **options).eval()
    units, times = find_units(dense), open_table("onnxruntime", CPU)
    turns = Turns(dense, size, "onnxruntime", CPU, upsample)
    timed = None if quick else Timed(dense, units, LIMITS, size, "onnxruntime", CPU, times=times, clock=turns)
    whole = cost.gmacs(dense, size)
    count = Layers(dense, units, size).gmacs
    goals: dict[str, Goal] = {"filters": Ratio(units, 0.5, LIMITS)}
    if not quick:
        goals["work"] = CostGoal(units, count, whole / 2, LIMITS)
    for half, goal in goals.items():
        small, removed = cut(dense, units, goal, LIMITS)
        before, share = turns(small)
        layers = spent(dense, small, size, times)
        work = whole / cost.gmacs(small, size)
        alone = sum(one.ms_before for one in layers) / sum(one.ms_after for one in layers)
        predicted = f"{timed.predicted(widths_left(units, removed)):.2f}" if timed else "-"
        row = (
            f"{name:<24}{half:<9}{whole:>7.3f}{work:>9.2f}{before:>10.2f}{share * before:>10.2f}{predicted:>11}"
            f"{1 / share:>10.2f}{1 / share / work:>8.2f}{alone / work:>8.2f}"
        )
        lines = [] if quick else reasons(dense, small, size, times, share * before)[:2]
        name_of = f"speedup_{name}" if half == "filters" else f"speedup_half_work_{name}"
        yield name_of, 1 / share / work, [row, *(f"  {line}" for line in lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="images of 128x256, no prediction, filters only")
    quick = parser.parse_args().quick
    size = (128, 256) if quick else (360, 480)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(f"one image of {size[0]}x{size[1]}\n")
    print("network                 half of   GMACs  work by  dense ms  small ms  predicted  speed-up   ratio  layers")
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARDY_CACHE"] = folder
        for name in NETWORKS:
            for figure, ratio, lines in measure(name, size, quick):
                ratios[figure] = ratio
                print("\n".join(lines), flush=True)
    print(f"\n{fingerprint()}\n")
    for figure, ratio in ratios.items():
        print(f"figure {figure} {ratio:.2f} goal >=0.8")


if __name__ == "__main__":
    main()
