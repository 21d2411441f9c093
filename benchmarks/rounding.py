"""Why widths are rounded: the same share of filters removed, kept widths multiples of 1, 4, 8 or 16.

Half of an untrained Fast-SCNN's filters are removed at random, data-free; what is left is timed in turns with the dense
network on one image of 360x480, one thread. Fewer multiplications are fewer milliseconds only where the runtime's
kernels like the widths.

    python benchmarks/rounding.py [--quick]
"""

import argparse
import logging

import torch

import hardy
from hardy.ops import cost
from hardy.timing.bench import compare
from hardy.timing.hardware import fingerprint

SIZE = (360, 480)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    runs = 15 if parser.parse_args().quick else 60
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    dense = hardy.create("fast_scnn", classes="camvid11")
    whole = cost.gmacs(dense, SIZE)
    print("widths        GMACs  share   onnxruntime   eager")
    ratios = {}
    for multiple in (1, 4, 8, 16):
        choice = {"schedule": "one_shot", "round_to": multiple}
        small = hardy.prune(dense, criterion="random", ratio=0.5, prune=choice, show=False)
        timed = {
            runtime: compare(dense, small, size=SIZE, runtime=runtime, runs=runs, threads=1).ratio
            for runtime in ("onnxruntime", "eager")
        }
        ratios[multiple] = timed["onnxruntime"]
        macs = cost.gmacs(small, SIZE)
        print(
            f"by the {multiple:<5}{macs:>8.3f}{macs / whole:>7.2f}{timed['onnxruntime']:>14.2f}{timed['eager']:>8.2f}"
        )
    print(f"\n{fingerprint()}\n")
    print(f"figure rounding_by_8_share_of_time {ratios[8]:.2f} goal <=0.8")


if __name__ == "__main__":
    main()
