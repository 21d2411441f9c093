"""What the last step costs: from a Fast-SCNN's logits to classes, in onnxruntime, in turns on one thread.

Four ways for one network: classes at full size, the same classes from the borders between cells alone, at half size and
doubled, at the network's own stride. And classes at full size by ONNX's ArgMax, with every bilinear resizing as ONNX's
Resize and as matrix products; ``full`` is what an export does, class by class. How long the borders take depends on how
many there are, so the network is trained first (150 steps on the day sequences of CamVid) and runs on images of dusk
and day; then half of its work goes, by l2 and the same share of each layer, it recovers for 100 steps, and is measured
in the same way. ``ratio by work`` is the speed-up by the reduction of the work, 1 where time falls as the work does,
with a goal of 0.8. Where there are no real images, and with ``--quick``, networks are trained for fewer steps on drawn
streets and run there.

    python benchmarks/epilogue.py [--quick]
"""

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hardy
from hardy.data.sources import data_root, domains
from hardy.deployment import class_by_class, graph, products
from hardy.deployment.epilogue import Upsample
from hardy.networks.base import Network, resize
from hardy.ops import cost
from hardy.timing.clock import interleave, threads_set
from hardy.timing.hardware import fingerprint

CPU = torch.device("cpu")
EXPORTED = (products.PRODUCT_LIMIT, class_by_class.MOST_CLASSES)
VARIANTS: dict[str, tuple[Upsample, tuple[int, int]]] = {
    "Resize": ("full", (0, 0)),
    "products": ("full", (10**6, 0)),
    "full": ("full", EXPORTED),
    "borders": ("borders", EXPORTED),
    "half": ("half", EXPORTED),
    "none": ("none", EXPORTED),
}
"""How logits are upsampled; the most multiplications of resizing by products, and the most classes without ArgMax."""
SIZES = [(352, 480), (512, 1024)]
CAMVID = {
    "sources": ["camvid/0006R0", "camvid/0016E5", "camvid/Seq05VD"],
    "split": "holdout",
    "size": [180, 240],
    "crop": [180, 240],
    "scale": [0.5, 2.0],
}
STREETS = {
    "sources": ["streets/sim", "streets/day"],
    "size": [96, 128],
    "crop": [96, 128],
    "datasets": {"streets": {"size": [96, 128]}},
}
SEEN = {"camvid": ("camvid/0001TP", "camvid/Seq05VD"), "streets": ("streets/night", "streets/day")}


def trained(real: bool, quick: bool) -> dict[str, Network]:
    """A Fast-SCNN, and one with half of its work."""
    data: Mapping[str, Any] = CAMVID if real else STREETS
    run = {"threads": 1, "workers": 0}
    optim = {"name": "adamw", "lr": 2e-3, "batch": 8}
    steps, recovery = (30, 10) if quick else (150, 100)
    dense = hardy.create("fast_scnn", classes="camvid11" if real else "cityscapes19")
    hardy.train(dense, data=data, steps=steps, optim=optim, run=run)
    half = cost.gmacs(dense, data["size"]) / 2
    how = {"scope": "layer", "round_to": 8, "schedule": "one_shot", "recovery": recovery, "recovery_lr": 1e-3}
    small = hardy.prune(
        dense, criterion="l2", data=data, target_gmacs=half, prune=how, optim=optim, run=run, show=False
    )
    return {"dense": dense.eval(), "half work": small}


def pictures(real: bool, size: tuple[int, int], count: int) -> list[Tensor]:
    """Images (1, 3, H, W) of two domains."""
    found = []
    for domain in domains(SEEN["camvid" if real else "streets"], root=data_root()):
        items = [item for each in domain.splits.values() for item in each]
        for item in items[:: max(1, len(items) // count)][:count]:
            image = torch.from_numpy(domain.dataset.read(item)[0]).permute(2, 0, 1).unsqueeze(0) / 255
            found.append(resize(image, size).contiguous())
    return found


def sessions(network: Network, size: tuple[int, int], variants: Sequence[str]) -> dict[str, graph.Session]:
    """``network`` in onnxruntime by variant, with classes as its output."""
    made, written = {}, {}
    with tempfile.TemporaryDirectory() as place:
        for variant in variants:
            upsample, limits = VARIANTS[variant]
            logits: Upsample = "none" if upsample == "borders" else upsample  # both begin with the network's own logits
            products.PRODUCT_LIMIT, class_by_class.MOST_CLASSES = limits
            try:
                if (logits, limits[0]) not in written:
                    file = written[logits, limits[0]] = Path(place, f"{len(written)}.onnx")
                    graph.write(network, file, size=size, upsample=logits)
                graph.with_classes(written[logits, limits[0]], Path(place, "classes.onnx"), upsample=upsample)
            finally:
                products.PRODUCT_LIMIT, class_by_class.MOST_CLASSES = EXPORTED
            made[variant] = graph.Session(Path(place, "classes.onnx"))
    return made


def measured(
    networks: Mapping[str, Network], images: list[Tensor], runs: int, variants: Mapping[str, Sequence[str]]
) -> tuple[dict[tuple[str, str], np.ndarray], dict[str, float]]:
    """Milliseconds (runs x images,) of every network and variant, and of each network on which share of the pixels the
    file with borders names the class of the one without."""
    size = (images[0].shape[2], images[0].shape[3])
    files = {name: sessions(network, size, variants[name]) for name, network in networks.items()}
    ready = {(name, variant): file for name, found in files.items() for variant, file in found.items()}
    same = {
        name: float(np.mean([(found["borders"](image) == found["Resize"](image)).float().mean() for image in images]))
        for name, found in files.items()
    }
    spent: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in ready}
    for image in images:
        runners = [partial(each, image) for each in ready.values()]
        for key, times in zip(ready, interleave(runners, runs, 1, CPU), strict=True):
            spent[key].append(times)
    return {key: np.concatenate(times) for key, times in spent.items()}, same


def shown(
    size: tuple[int, int], networks: Mapping[str, Network], images: list[Tensor], quick: bool
) -> dict[str, float]:
    """Print the rows of one size; its figures by name."""
    variants = dict.fromkeys(networks, tuple(VARIANTS))
    if quick:
        variants = {
            "dense": ("Resize", "products", "full", "borders", "half", "none"),
            "half work": ("Resize", "borders"),
        }
    spent, same = measured(networks, images, 4 if quick else 10, variants)
    work = cost.gmacs(networks["dense"], size) / cost.gmacs(networks["half work"], size)
    found = {}
    for (name, variant), times in spent.items():
        share = float(np.median(times / spent[name, "Resize"]))
        row = f"{size[0]}x{size[1]:<8}{name:<12}{variant:<10}{np.median(times):>8.2f}{times.min():>11.2f}{share:>11.2f}"
        if name == "dense":
            found[f"{variant}_share"] = share
        else:
            ratio = found[f"{variant}_by_work"] = float(np.median(spent["dense", variant] / times)) / work
            row += f"{ratio:>15.2f}"
        print(row, flush=True)
    print(
        f"work by {work:.2f}; the file with borders names the class of Resize on "
        + ", ".join(f"{share:.4%} ({name})" for name, share in same.items())
    )
    return {**found, "same": min(same.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="drawn streets, the small image only, fewer runs")
    quick = parser.parse_args().quick
    real = not quick and (data_root() / "camvid").is_dir()
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    print(f"Fast-SCNN trained and run on {'CamVid' if real else 'drawn streets'}\n")
    print("size        network     variant     p50 ms   least ms  to Resize  ratio by work")
    figures = {}
    with threads_set(1):
        networks = trained(real, quick)
        for size in SIZES[:1] if quick else SIZES:
            images = pictures(real, size, 2 if quick else 4)
            figures[size] = shown(size, networks, images, quick)
    print(f"\n{fingerprint()}\n")
    small = figures[SIZES[0]]
    print(f"figure resizing_as_products_share_of_time {small['products_share']:.2f} goal <=1.00")
    print(f"figure classes_by_class_share_of_argmax {small['full_share'] / small['products_share']:.2f} goal <=1.00")
    print(f"figure classes_from_borders_share_of_time {small['borders_share']:.2f} goal <=0.90")
    print(f"figure classes_from_borders_same {small['same']:.6f} goal >=0.9999")
    print(f"figure classes_at_half_share_of_time {small['half_share']:.2f} goal <=0.95")
    print(f"figure classes_at_own_stride_share_of_time {small['none_share']:.2f} goal <=0.90")
    if not quick:
        print(f"figure speedup_half_work_at_full_size {small['full_by_work']:.2f} goal >=0.8")
    print(f"figure speedup_half_work_with_borders {small['borders_by_work']:.2f} goal >=0.8")


if __name__ == "__main__":
    main()
