"""Every network as one ONNX file that takes every size: written from one example, run in onnxruntime at others.

The example is one image of 64x128. The file then gets a batch of three, sides that no stride divides, and images as
small as the network takes. The weights are untrained; ``apart`` is the largest difference of a logit from PyTorch's, as
a share of the largest logit, over all these sizes, or the sizes at which the file does not run.

    python benchmarks/exports.py [--quick] [NETWORK ...]
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

import hardy
from hardy.deployment import graph
from hardy.networks.base import Network
from hardy.registry import NETWORKS
from hardy.timing.hardware import fingerprint

EXAMPLE = (64, 128)
SIZES = ((1, 64, 128), (3, 97, 161), (1, 130, 67), (2, 321, 517))
"""Batches of images, beside the smallest that the network takes."""

APART = 1e-3
"""What rounding may change; deep untrained networks come near it."""


def apart(network: Network, session: graph.Session) -> Iterator[tuple[str, float | None]]:
    """For each size by how much the file and ``network`` differ; None where the file does not run."""
    least = network.least_size
    for batch, height, width in (*SIZES, (1, least, least + 1)):
        images = torch.rand(batch, 3, height, width)
        name = f"{batch}x{height}x{width}"
        with torch.no_grad():
            ours = network(images)
        try:
            theirs = session(images)
        except Exception:
            yield name, None
            continue
        yield name, float((theirs - ours).abs().max() / ours.abs().max()) if theirs.shape == ours.shape else None


def measured(name: str, folder: Path) -> tuple[str, bool]:
    """A line of the table, and whether all is as it should be."""
    torch.manual_seed(0)
    network = hardy.create(name, classes="camvid11").eval()
    file = folder / f"{name}.onnx"
    graph.write(network, file, size=EXAMPLE, dynamic=True)
    nodes = len(onnx.load(file).graph.node)
    try:
        session = graph.Session(file)
    except Exception as error:
        return f"{name:<18}{nodes:>7}  not loaded: {str(error).splitlines()[0][:60]}", False
    found = dict(apart(network, session))
    failed = [size for size, share in found.items() if share is None or share > APART]
    largest = max((share for share in found.values() if share is not None), default=float("nan"))
    return f"{name:<18}{nodes:>7}{largest:>11.1e}  {', '.join(failed) or '–'}", not failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="only these")
    parser.add_argument("--quick", action="store_true", help="only tiny and fast_scnn")
    given = parser.parse_args()
    names = given.networks or [name for name in NETWORKS if name != "classifier"]
    names = ["tiny", "fast_scnn"] if given.quick else names
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(f"{'network':<18}{'nodes':>7}{'apart':>11}  wrong at")
    right = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            line, good = measured(name, Path(folder))
            right.append(good)
            print(line, flush=True)
    print(f"\n{fingerprint()}\n")
    print(f"figure exports_right_at_every_size {sum(right) / len(right):.2f} goal >=1")


if __name__ == "__main__":
    main()
