"""Saved networks: their description, their weights, and pairs that do not match, through ``predict``."""

import hashlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from _harness import Case
from _mutations import damaged, perturbed
from _small import pixels_of
from PIL import Image
from safetensors.torch import load, save

import hardy


def prepare(folder: Path) -> dict[str, Any]:
    """A pruned network with an auxiliary head, an image, and the mask that it predicts."""
    dense = hardy.create("tiny", "camvid11", width=16, aux=True)
    choice = {"schedule": "one_shot", "round_to": 1}
    hardy.save(hardy.prune(dense, criterion="l2", ratio=0.4, prune=choice, show=False), folder / "net")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / "a.png")
    hardy.predict(hardy.load(folder / "net"), folder / "a.png", folder / "masks")
    return {"net": folder / "net", "image": folder / "a.png", "mask": pixels_of(folder / "masks" / "a.png")}


def case(draw: Random, base: dict[str, Any], folder: Path) -> Case:
    """A copy of the network with one thing changed."""
    net = folder / "net"
    shutil.copytree(base["net"], net)
    description, weights = net / "network.json", net / "network.safetensors"
    how = draw.choice(("bytes of json", "bytes of weights", "values", "values", "values", "values", "tensors", "deep"))
    may_differ = False
    if how.startswith("bytes"):
        file = description if how.endswith("json") else weights
        data, note = damaged(file.read_bytes(), draw)
        file.write_bytes(data)
    elif how == "values":
        under = draw.choice(((), ("changes",), ("architecture",), ("labels",)))
        values, note = perturbed(json.loads(description.read_text(encoding="utf-8")), draw, under)
        if isinstance(values, dict):
            values.pop("description_sha256", None)
        description.write_text(json.dumps(values), encoding="utf-8")
        may_differ = True
    elif how == "tensors":
        note = _tensors(description, weights, draw)
    else:
        depth = draw.choice((200, 5000, 100_000))
        description.write_text(draw.choice(("[", '{"a":')) * depth, encoding="utf-8")
        note = f"{depth} brackets"
    words = ("predict", net, base["image"], folder / "masks")
    same = None if may_differ else lambda: pixels_of(folder / "masks" / "a.png") == base["mask"]
    return Case(words, f"{how}: {note}", same)


def _tensors(description: Path, weights: Path, draw: Random) -> str:
    """Sound files whose numbers are none, or of another kind: the checksums are right."""
    tensors = load(weights.read_bytes())
    name = draw.choice([name for name, value in tensors.items() if value.is_floating_point()])
    if draw.random() < 0.5:
        rubbish: object = draw.choice((float("nan"), float("inf"), -float("inf")))
        tensors[name].view(-1)[draw.randrange(tensors[name].numel())] = rubbish
    else:
        rubbish = draw.choice((torch.complex64, torch.int64, torch.bool))
        tensors[name] = tensors[name].to(rubbish)
    data = save(tensors, {"format": "hardy-network/1"})
    weights.write_bytes(data)
    values = json.loads(description.read_text(encoding="utf-8"))
    values.pop("description_sha256", None)
    values["sha256"] = hashlib.sha256(data).hexdigest()
    description.write_text(json.dumps(values), encoding="utf-8")
    return f"{rubbish} in {name}"
