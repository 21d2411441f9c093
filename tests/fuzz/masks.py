"""Masks: damaged, odd, misplaced, in lossy formats and strange palettes, through ``data`` and ``evaluate``."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from _harness import Case
from _pictures import put
from _small import sections
from PIL import Image

import hardy

CHANGED = "3.png"
CLASSES = (
    "- {name: road}\n- {name: sky}\n",
    "- {name: road, colour: [0, 0, 0]}\n- {name: sky, colour: [1, 1, 1]}\n",
    "- {name: road, colour: [255, 0, 0]}\n- {name: sky, id: 255, colour: [0, 0, 255]}\n",
    "- {name: '[/x]'}\n- {name: \"a\\rb\", ids: [1, 85, 257]}\n",
)


def prepare(folder: Path) -> dict[str, Any]:
    """Eight masks with noise for images, a network, and what it scores."""
    sections(folder)
    net = hardy.save(hardy.create("tiny", folder / "data", width=8), folder / "net")
    table = hardy.evaluate(hardy.load(net), ["folder"], root=folder / "data")
    values = [table.rows[0].scores.miou, table.rows[0].scores.pixel_accuracy]
    return {"data": folder / "data", "net": net, "values": values}


def case(draw: Random, base: dict[str, Any], folder: Path) -> Case:
    """A copy of the data set with one mask changed."""
    shutil.copytree(base["data"], folder / "data")
    shutil.copytree(base["net"], folder / "net")
    (folder / "net" / "records.jsonl").unlink(missing_ok=True)
    masks = folder / "data" / "masks" / "day"
    ids = np.array(Image.open(masks / CHANGED))
    if draw.random() < 0.2:
        picture = Image.fromarray(ids)
        picture.putpalette([draw.choice((0, 1, 255)) for _ in range(3 * draw.choice((1, 2, 256)))])
        picture.save(masks / CHANGED)
    note, may_differ = put(draw, masks / CHANGED, ids)
    classes = draw.choice((*CLASSES, *CLASSES[:1] * 3))
    (folder / "data" / "classes.yaml").write_text(classes, encoding="utf-8")
    verb = draw.choice(("data", "evaluate"))
    words: dict[str, tuple[object, ...]] = {
        "data": ("data", "folder", "--root", folder / "data"),
        "evaluate": ("evaluate", folder / "net", "folder", "--root", folder / "data", "--per-class"),
    }
    comparable = verb == "evaluate" and not may_differ and classes == CLASSES[0]
    same = (lambda: _values(folder / "net") == base["values"]) if comparable else None
    return Case(words[verb], f"{verb}: {note}; {classes!r}", same)


def _values(net: Path) -> list[Any]:
    lines = [json.loads(line) for line in (net / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["value"] for line in lines if line["target"] == "folder/day"][:2]
