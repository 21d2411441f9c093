"""How fast the procedural data set draws, per domain, on one core; and a contact sheet to look at.

    python benchmarks/streets.py [--quick] [--sheet FILE.png]

The goal is 30 images of 256 x 512 pixels per second of processor time in the slowest domain.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from hardy.data.datasets.streets import Streets
from hardy.timing.hardware import fingerprint

GOAL = 30.0


def speed(streets: Streets, domain: str, count: int) -> float:
    """Images per second of processor time: the better of two runs, after one image that fills the tables."""
    streets.read((domain, 0))
    best = 0.0
    for start in (1, 1 + count):
        began = time.process_time()
        for number in range(start, start + count):
            streets.read((domain, number))
        best = max(best, count / (time.process_time() - began))
    return best


def contact_sheet(streets: Streets, columns: int, first: int) -> Image.Image:
    """A row per domain: images, then the last of them with its classes laid over."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(streets.label_space.colours)] = np.array(streets.label_space.colours, np.uint8)
    rows = []
    for domain in streets.index():
        cells = []
        for number in range(first, first + columns):
            image, mask = streets.read((domain, number))
            cells.append(image)
        cells.append((image * 0.35 + colours[mask] * 0.65).astype(np.uint8))
        rows.append(np.concatenate(cells, axis=1))
    return Image.fromarray(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer images per domain")
    parser.add_argument("--sheet", metavar="FILE.png", help="write a contact sheet instead of measuring")
    parser.add_argument("--first", type=int, default=0, help="number of the sheet's first image")
    parser.add_argument("--columns", type=int, default=3, help="images per row of the sheet")
    options = parser.parse_args()
    streets = Streets(size=(256, 512))
    if options.sheet:
        contact_sheet(streets, options.columns, options.first).save(options.sheet)
        return
    count = 12 if options.quick else 60
    speeds = {domain: speed(streets, domain, count) for domain in streets.index()}
    print(f"{'domain':<10} {'images/s':>9} {'ms/image':>9}")
    for domain, found in speeds.items():
        print(f"{domain:<10} {found:9.1f} {1000 / found:9.1f}")
    print(f"{fingerprint()}\n")
    print(f"figure streets_slowest_images_per_second {min(speeds.values()):.1f} goal >={GOAL:.0f}")


if __name__ == "__main__":
    main()
