"""What pruning costs besides training: finding the units of a network, and cutting half of every unit away.

Processor seconds of one core (so that other work on the machine counts not), of networks with random weights. Finding
the units includes the trial in which every unit is masked and removed on a copy.

    python benchmarks/surgery.py [--quick]
"""

import argparse
import logging
import time

import torch

import hardy
from hardy.ops import cost
from hardy.pruning.remove import remove
from hardy.pruning.units import survey
from hardy.timing.hardware import fingerprint

NETWORKS = {
    "fast_scnn": {"name": "fast_scnn"},
    "swiftnet": {"name": "swiftnet"},
    "deeplabv3plus_resnet18": {"name": "encoder_decoder", "encoder": "resnet18", "decoder": "deeplabv3plus"},
    "deeplabv3plus_resnet101": {"name": "encoder_decoder", "encoder": "resnet101", "decoder": "deeplabv3plus"},
    "linear_vgg16": {"name": "encoder_decoder", "encoder": "vgg16_bn", "decoder": "linear"},
    "segformer_b0": {"name": "segformer", "variant": "b0"},
    "segformer_b5": {"name": "segformer", "variant": "b5"},
}
BRIEF = ("fast_scnn", "swiftnet", "deeplabv3plus_resnet18", "deeplabv3plus_resnet101", "segformer_b0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the largest networks")
    chosen = BRIEF if parser.parse_args().quick else tuple(NETWORKS)
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"{'network':26}{'units':>6}{'gates':>8}{'heads':>7}{'find s':>8}{'cut s':>7}{'M parameters':>22}")
    spent = {}
    for name in chosen:
        network = hardy.create(classes="cityscapes19", **NETWORKS[name])
        before = cost.parameters(network)
        start = time.process_time()
        units = survey(network).units
        found = time.process_time()
        remove(network, units, {unit.name: list(range(unit.size // 2)) for unit in units if unit.size > 1})
        done = time.process_time()
        spent[name] = done - start
        gates, heads = (sum(u.size for u in units if (u.kind == "heads") == kind) for kind in (False, True))
        widths = f"{before / 1e6:.2f} -> {cost.parameters(network) / 1e6:.2f}"
        print(f"{name:26}{len(units):>6}{gates:>8}{heads:>7}{found - start:>8.2f}{done - found:>7.2f}{widths:>22}")
    print(f"\n{fingerprint()}\n")
    print(f"figure surgery_deeplabv3plus_resnet101_seconds {spent['deeplabv3plus_resnet101']:.2f} goal <=5")


if __name__ == "__main__":
    main()
