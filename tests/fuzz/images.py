"""Images: damaged, odd, misplaced, through ``data``, ``predict`` with and without windows, and ``evaluate``."""

import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from _harness import Case
from _pictures import put
from _small import pixels_of, sections
from PIL import Image

import hardy

CHANGED = "3.png"


def prepare(folder: Path) -> dict[str, Any]:
    """Eight images, a network, and the masks that it predicts."""
    sections(folder)
    images = folder / "data" / "images" / "day"
    for number, file in enumerate(sorted(images.iterdir())):
        draw = np.random.default_rng(number)
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    net = hardy.save(hardy.create("tiny", folder / "data", width=8), folder / "net")
    hardy.predict(hardy.load(net), images, folder / "masks")
    return {"data": folder / "data", "net": net, "mask": pixels_of(folder / "masks" / CHANGED)}


def case(draw: Random, base: dict[str, Any], folder: Path) -> Case:
    """A copy of the images with one of them changed."""
    shutil.copytree(base["data"], folder / "data")
    images = folder / "data" / "images" / "day"
    sound = np.array(Image.open(images / CHANGED))
    note, may_differ = put(draw, images / CHANGED, sound)
    shutil.copytree(base["net"], folder / "net")
    masks = folder / "masks"
    verb = draw.choice(("data", "predict", "predict", "window", "one", "evaluate", "above"))
    words: dict[str, tuple[object, ...]] = {
        "data": ("data", "folder", "--root", folder / "data"),
        "predict": ("predict", folder / "net", images, masks),
        "window": ("predict", folder / "net", images, masks, "--window", "16x20", "--overlay"),
        "one": ("predict", folder / "net", images / CHANGED, masks, "--size", "32x32"),
        "evaluate": ("evaluate", folder / "net", "folder", "--root", folder / "data"),
        "above": ("predict", folder / "net", images, folder),
    }
    same = (lambda: pixels_of(masks / CHANGED) == base["mask"]) if verb == "predict" and not may_differ else None
    return Case(words[verb], f"{verb}: {note}", same)
