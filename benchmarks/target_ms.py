"""Whether a target in milliseconds is met: pruned to it, then measured again, on four networks in onnxruntime.

Each network is pruned without training (by l2, the same share of each layer, widths multiples of 8) to six tenths of
its milliseconds for one image with classes at full size. While it chooses channels, pruning measures some networks;
``reached`` is the last of them. ``again`` is the final network in a new measurement, in turns with the dense one, in
milliseconds of the dense network's first measurement. ``predicted`` is what the table of layer times says from the
dense network and the narrowest one alone.

    python benchmarks/target_ms.py [--quick]
"""

import argparse
import logging
import os
import tempfile

import torch

import hardy
from _cut import cut
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units
from hardy.timing.hardware import fingerprint
from hardy.timing.targets import Outcome, Timed, Turns, time_target

NETWORKS = {
    "fast_scnn": ("fast_scnn", {}),
    "swiftnet": ("swiftnet", {}),
    "bisenetv2": ("bisenetv2", {}),
    "mobilenetv2_035": ("encoder_decoder", {"encoder": "mobilenetv2_035", "decoder": "swiftnet"}),
}
LIMITS = Limits("layer", 8, 8)
CPU = torch.device("cpu")
SHARE = 0.6
GOAL = 0.05


def measure(name: str, size: tuple[int, int]) -> tuple[Outcome, float]:
    """One network: what pruning reports, and the milliseconds measured afterwards."""
    torch.manual_seed(0)
    kind, options = NETWORKS[name]
    dense = hardy.create(kind, classes="camvid11", **options).eval()
    units = find_units(dense)
    timed = Timed(dense, units, LIMITS, size, "onnxruntime", CPU)
    target = time_target(timed, units, LIMITS, SHARE * timed.dense, "onnxruntime")
    small, removed = cut(dense, units, target.goal, LIMITS)
    outcome = target.outcome(removed)
    assert outcome is not None, "the target is in milliseconds"
    return outcome, timed.dense * Turns(dense, size, "onnxruntime", CPU)(small)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Fast-SCNN on images of 128x256 only")
    quick = parser.parse_args().quick
    size = (128, 256) if quick else (360, 480)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(f"one image of {size[0]}x{size[1]}, one thread\n")
    print("network            dense ms  target ms  reached  again  off by  predicted  off by  networks")
    off, off_predicted = [], []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARDY_CACHE"] = folder
        for name in ["fast_scnn"] if quick else NETWORKS:
            outcome, again = measure(name, size)
            off.append(abs(again / outcome.target - 1))
            off_predicted.append(abs(outcome.predicted / again - 1))
            print(
                f"{name:<18}{outcome.before:>9.2f}{outcome.target:>11.2f}{outcome.reached:>9.2f}{again:>7.2f}"
                f"{off[-1]:>8.1%}{outcome.predicted:>11.2f}{off_predicted[-1]:>8.1%}{outcome.networks:>10}",
                flush=True,
            )
    print(f"\n{fingerprint()}\n")
    print(f"figure target_ms_off {max(off):.3f} goal <={GOAL}")
    print(f"figure target_ms_prediction_off {max(off_predicted):.3f} goal <=0.10")


if __name__ == "__main__":
    main()
