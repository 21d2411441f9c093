"""What the last step costs: from a Fast-SCNN's logits to classes, in onnxruntime, in turns on one thread.

Three ways for one network: classes at full size, at half size and doubled, at the network's own stride. And the same
graph with every bilinear resizing as ONNX's Resize and as two matrix products, each at an image whose maps have few
cells, where Hardy writes the product, and at one whose maps have many, where it does not.

    python benchmarks/epilogue.py [--quick]
"""

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch

import hardy
from hardy.engine import graph
from hardy.engine.hardware import fingerprint
from hardy.engine.timing import draw, interleave, threads_set

CPU = torch.device("cpu")


def session(network, folder, name, size, *, upsample="full", limit=graph.PRODUCT_LIMIT):
    """``network`` in onnxruntime, with classes as its output; resizing is a product up to ``limit``."""
    logits, classes = folder / f"{name}_logits.onnx", folder / f"{name}.onnx"
    kept, graph.PRODUCT_LIMIT = graph.PRODUCT_LIMIT, limit
    try:
        graph.write(network, logits, size=size, upsample=upsample)
    finally:
        graph.PRODUCT_LIMIT = kept
    graph.with_classes(logits, classes, upsample=upsample)
    return graph.Session(classes)


def measured(size, runs):
    """Milliseconds (runs,) of every variant at ``size``, and whether the product's classes are those of Resize."""
    torch.manual_seed(0)
    network = hardy.create("fast_scnn", classes="camvid11").eval()
    images = draw(1, size, CPU)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ready = {
            "Resize": session(network, folder, "resize", size, limit=0),
            "products": session(network, folder, "products", size, limit=10**6),
            "full": session(network, folder, "full", size),
            "half": session(network, folder, "half", size, upsample="half"),
            "none": session(network, folder, "none", size, upsample="none"),
        }
        same = float((ready["Resize"](images) == ready["products"](images)).float().mean())
        runners = [lambda each=each: each(images) for each in ready.values()]
        times = dict(zip(ready, interleave(runners, runs, 3, CPU), strict=True))
    return times, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small image only, fewer runs")
    quick = parser.parse_args().quick
    logging.disable(logging.WARNING)
    ratios = {}
    print("size        variant     p50 ms   least ms   ratio to Resize at full size")
    with threads_set(1):
        for size in [(360, 480)] if quick else [(360, 480), (512, 1024)]:
            times, same = measured(size, 15 if quick else 60)
            for name, spent in times.items():
                ratio = ratios[size, name] = float(np.median(spent / times["Resize"]))
                p50 = float(np.median(spent))
                print(f"{size[0]}x{size[1]:<8}{name:<10}{p50:>8.2f}{spent.min():>11.2f}{ratio:>11.2f}")
            print(f"products and Resize name the same class on {same:.4%} of the pixels")
    print(f"\n{fingerprint()}\n")
    small = (360, 480)
    print(f"figure resizing_as_products_share_of_time {ratios[small, 'full']:.2f} goal <=1.00")
    print(f"figure classes_at_half_share_of_time {ratios[small, 'half']:.2f} goal <=0.95")
    print(f"figure classes_at_own_stride_share_of_time {ratios[small, 'none']:.2f} goal <=0.90")


if __name__ == "__main__":
    main()
