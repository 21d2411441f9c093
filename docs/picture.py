"""Draws the README's picture: frames at dusk, their labels, and what a network trained by day alone predicts.

    hardy train recipes/beds/camvid.yaml run.folder=runs/dusk
    python docs/picture.py runs/dusk docs/images/dusk.png

The frames are evenly spaced over the sequence; none is chosen by its score. It prints the network's
mIoU on all of them.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import hardy
from hardy.data.sources import data_root, domains
from hardy.data.transforms import evaluation
from hardy.networks.base import Network, resize

DUSK = "camvid/0001TP"
COLUMNS = ("image", "truth", "prediction")
TILE = (198, 264)
TITLE, GAP, ROWS = 16, 4, 3
COLOURS = 192


def tiles(network: Network, size: tuple[int, int], count: int) -> list[list[Image.Image]]:
    """Image, labels and prediction of ``count`` frames, at the size of the labels; pixels without a label are black.

    Args:
        network: one that labels pixels in the classes of CamVid.
        size: (height, width) at which it sees the frames.
        count: how many of the sequence's frames.
    """
    (domain,) = domains([DUSK], root=data_root())
    items = sorted(domain.items(*domain.splits), key=domain.dataset.name_of)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(network.label_space)] = network.label_space.colours
    prepare = evaluation(size)
    rows = []
    for place in np.linspace(0, len(items) - 1, count + 2).round().astype(int)[1:-1]:
        image, label = domain.dataset.read(items[place])
        seen, _ = prepare(image, label)
        classes = resize(network(seen.unsqueeze(0)), label.shape)[0].argmax(0).numpy()
        rows.append([Image.fromarray(part) for part in (image, colours[label], colours[classes])])
    return rows


def picture(rows: list[list[Image.Image]]) -> Image.Image:
    """One picture of all tiles, in a palette so that the file stays small."""
    height, width = TILE
    whole = Image.new("RGB", (len(COLUMNS) * (width + GAP) - GAP, TITLE + len(rows) * (height + GAP) - GAP), "white")
    draw = ImageDraw.Draw(whole)
    for column, title in enumerate(COLUMNS):
        draw.text((column * (width + GAP) + 2, 2), title, fill="black")
        for row, found in enumerate(rows):
            how = Image.Resampling.LANCZOS if column == 0 else Image.Resampling.NEAREST
            tile = found[column].resize((width, height), how)
            whole.paste(tile, (column * (width + GAP), TITLE + row * (height + GAP)))
    return whole.quantize(COLOURS, dither=Image.Dither.NONE)


def main() -> None:
    """Draw the picture of the run named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a network trained on camvid")
    parser.add_argument("target", type=Path, help="the PNG to write")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), help="height and width it was trained at")
    given = parser.parse_args()
    network = hardy.load(given.run).eval().requires_grad_(requires_grad=False)
    picture(tiles(network, tuple(given.size), ROWS)).save(given.target, optimize=True)
    table = hardy.evaluate(network, data=[DUSK], size=tuple(given.size))
    print(f"{given.target}: mIoU on {DUSK} {table.unseen:.3f}")


if __name__ == "__main__":
    main()
