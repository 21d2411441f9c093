"""Style artefacts: their description, their tensors, pairs that do not match; loaded, and at times trained with."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from _harness import Case
from _mutations import damaged, perturbed
from _small import sections
from safetensors.torch import load, save

import hardy
from hardy.commands._ending import leave
from hardy.networks.styles.dsp import FORMAT, first_layers, load_dsp, save_dsp
from hardy.ops.dsp import Perturbation
from hardy.ops.style_vae import DVAE, mirror


def prepare(folder: Path) -> dict[str, Any]:
    """A style perturbation that reads the first layers of a small network, and what it makes of an image."""
    values = sections(folder)
    values["optim"]["steps"] = 1
    torch.manual_seed(0)
    encoder = first_layers(hardy.create("tiny", "camvid11", width=8), 2)
    width = encoder.channels
    made = Perturbation(encoder, DVAE(width).decoder, mirror(width, 2), torch.randn(width), torch.rand(width, width))
    save_dsp(made, folder / "style")
    return {"style": folder / "style", "sections": values, "drawn": _drawn(folder / "style")}


def case(draw: Random, base: dict[str, Any], folder: Path) -> Case:
    """A copy of the style with one thing changed."""
    style = folder / "style"
    shutil.copytree(base["style"], style)
    description, weights = style / "style.json", style / "style.safetensors"
    how = draw.choice(("bytes of json", "bytes of weights", "values", "values", "values", "tensors", "place"))
    if how.startswith("bytes"):
        file = description if how.endswith("json") else weights
        data, note = damaged(file.read_bytes(), draw)
        file.write_bytes(data)
    elif how == "values":
        under = draw.choice(((), ("encoder",), ("encoder", "architecture"), ("encoder", "labels")))
        values, note = perturbed(json.loads(description.read_text(encoding="utf-8")), draw, under)
        if isinstance(values, dict):
            values.pop("description_sha256", None)
        description.write_text(json.dumps(values), encoding="utf-8")
    elif how == "tensors":
        note = _tensors(description, weights, draw)
    else:
        note = _misplaced(draw.choice((description, weights)), draw)
    if draw.random() < 0.1:
        values = {**base["sections"], "algorithm": {"name": "dsp", "style": str(style)}}
        values["run"] = {**values["run"], "folder": str(folder / "run")}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return Case(("train", folder / "recipe.yaml"), f"train: {how}: {note}")
    same = (lambda: torch.equal(_drawn(style), base["drawn"])) if how.startswith("bytes") or how == "place" else None
    return Case(lambda: leave(lambda: _finite(style)), f"{how}: {note}", same)


def _drawn(style: Path) -> torch.Tensor:
    """One image in one style."""
    dsp = load_dsp(style)
    codes = torch.full((1, len(dsp.centre)), 0.3)
    with torch.no_grad():
        return dsp.redraw(dsp.content(torch.full((1, 3, 64, 64), 0.5)), codes, (64, 64))


def _finite(style: Path) -> None:
    """Draw, and say so where no image comes of it."""
    assert bool(_drawn(style).isfinite().all()), "the image drawn is not finite"


def _tensors(description: Path, weights: Path, draw: Random) -> str:
    """Sound files of tensors that are not those of the style: the checksum is right."""
    tensors = load(weights.read_bytes())
    name = draw.choice(sorted(tensors))
    value = tensors.pop(name)
    odd = {
        "nan": value.float() * float("nan"),
        "infinite": value.float() + float("inf"),
        "gone": None,
        "renamed": value,
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0),
        "wider": torch.zeros([*value.shape, 2]),
        "complex": torch.zeros(value.shape, dtype=torch.complex64),
        "bool": value > 0,
    }
    how = draw.choice(sorted(odd))
    if odd[how] is not None:
        tensors[f"{name}x" if how == "renamed" else name] = odd[how]
    data = save(tensors, {"format": FORMAT})
    weights.write_bytes(data)
    values = json.loads(description.read_text(encoding="utf-8"))
    values.pop("description_sha256", None)
    values["sha256"] = hashlib.sha256(data).hexdigest()
    description.write_text(json.dumps(values), encoding="utf-8")
    return f"{how}: {name}"


def _misplaced(file: Path, draw: Random) -> str:
    how = draw.choice(("gone", "folder", "pipe", "loop", "deep"))
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "loop":
        file.symlink_to(file)
    elif how == "deep":
        file.write_text(draw.choice(("[", '{"a":')) * draw.choice((200, 100_000)), encoding="utf-8")
    return f"{how}: {file.name}"
