"""`hardy predict` compared with the bare network: images per second with decoding and writing, and without.

SwiftNet (ResNet-18, 19 classes) on JPEGs of 512 x 1024 pixels, one thread of torch. Bare is the network alone on
tensors that are ready. Predicting decodes each file ahead, takes the best class at full size and writes a palette PNG
behind, in threads. Both in turns, by the clock; the median over turns counts. A machine whose cores are busy with
other work shows less, since decoding and writing then wait too.

    python benchmarks/predict.py [--quick]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from hardy import create
from hardy.engine.classify import tensor_of
from hardy.engine.predict import predict_all
from hardy.networks.base import Network
from hardy.timing.hardware import fingerprint

SIZE = (512, 1024)


def pictures(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs: rectangles on a ground of smooth colour, with noise."""
    for number in range(count):
        draw = np.random.default_rng(number)
        image = np.broadcast_to(np.linspace(40, 200, SIZE[1])[None, :, None], (*SIZE, 3)).copy()
        for _ in range(60):
            top, left = draw.integers(0, SIZE[0]), draw.integers(0, SIZE[1])
            image[top : top + draw.integers(8, 160), left : left + draw.integers(8, 160)] = draw.integers(0, 256, 3)
        image += draw.normal(0, 6, image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.jpg", quality=92)


@torch.inference_mode()
def bare(network: Network, images: list[torch.Tensor]) -> None:
    """The network alone."""
    for image in images:
        network(image)


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and turns")
    count, turns = (6, 3) if parser.parse_args().quick else (24, 7)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = create("swiftnet", "cityscapes19").eval()
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / "photos"
        photos.mkdir()
        pictures(photos, count)
        images = [tensor_of(np.array(Image.open(file)), None)[None] for file in sorted(photos.iterdir())]
        bare(network, images[:1])
        found: dict[str, list[float]] = {"bare network": [], "hardy predict": []}
        for turn in range(turns):
            masks = Path(place) / f"masks{turn}"
            found["bare network"].append(count / seconds(lambda: bare(network, images)))
            found["hardy predict"].append(
                count / seconds(lambda masks=masks: predict_all(network, photos, masks, device="cpu"))
            )
    print(f"{'':<14} {'images/s':>9}")
    for name, speeds in found.items():
        print(f"{name:<14} {median(speeds):9.2f}")
    ratio = median(ours / alone for alone, ours in zip(found["bare network"], found["hardy predict"], strict=True))
    print(f"\n{fingerprint()}\n")
    print(f"figure predict_to_bare {ratio:.2f} goal >=0.9")


if __name__ == "__main__":
    main()
