"""Checkpoints of a stopped run: their bytes, their header and their tensors, through ``train``, which goes on."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import torch
import yaml
from _harness import Case
from _mutations import damaged, perturbed
from _small import sections
from safetensors import safe_open
from safetensors.torch import save_file

from hardy import recipe
from hardy.commands import train
from hardy.engine.fit import Fit

SHORT = 10


def prepare(folder: Path) -> dict[str, Any]:
    """Eight images, a run that was stopped after four of six steps, and the weights at which it would have ended."""
    return {"folder": folder, **stopped_run(folder)}


def stopped_run(folder: Path) -> dict[str, Any]:
    """The recipe's sections and the weights at the end; the stopped run lies in ``folder / "run"``."""
    values = sections(folder)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    end = train.run(recipe.read(file, [f"run.folder={folder / 'end'}"]), show=False)
    real = Fit._step

    def step(self: Fit, batch: Any) -> None:
        if self.progress.step == 4:
            raise KeyboardInterrupt
        real(self, batch)

    with mock.patch.object(Fit, "_step", step):
        try:
            train.run(recipe.read(file), show=False)
        except KeyboardInterrupt:
            assert (folder / "run" / "checkpoint.safetensors").exists()
    return {"sections": values, "weights": (end / "network.safetensors").read_bytes()}


def case(draw: Random, base: dict[str, Any], folder: Path) -> Case:
    """The stopped run with one thing in its checkpoint, or in the selected weights, changed."""
    run = folder / "run"
    shutil.copytree(base["folder"] / "run", run)
    how = draw.choice(("bytes", "bytes", "bytes", "header", "header", "tensors"))
    file = run / draw.choice(("checkpoint.safetensors", "checkpoint.safetensors", "best.safetensors"))
    if how == "bytes":
        data = file.read_bytes()
        head = data[: draw.choice((4000, len(data)))]
        changed, note = damaged(head, draw)
        file.write_bytes(changed + data[len(head) :])
    else:
        file = run / "checkpoint.safetensors"
        note = _forged(file, how, draw)
    values = {**base["sections"], "run": {**base["sections"]["run"], "folder": str(run)}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def same() -> bool:
        return how != "bytes" or (run / "network.safetensors").read_bytes() == base["weights"]

    return Case(("train", folder / "recipe.yaml"), f"{file.name}: {how}: {note}", same)


def _forged(file: Path, how: str, draw: Random) -> str:
    """Change header or tensors of a checkpoint as it was before there were checksums."""
    with safe_open(file, framework="pt") as handle:
        header = handle.metadata()
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    del header["sha256"]
    if how == "header":
        state, note = perturbed(json.loads(header["state"]), draw)
        header["state"] = json.dumps(state)
    else:
        name = draw.choice(sorted(tensors))
        value = tensors.pop(name)
        odd = {
            "nan": value.float() * float("nan"),
            "gone": None,
            "renamed": value,
            "scalar": torch.tensor(1.0),
            "empty": torch.zeros(0),
            "wider": torch.zeros([*value.shape, 2]),
            "double": value.double(),
        }
        note = draw.choice(sorted(odd))
        if odd[note] is not None:
            tensors[draw.choice((f"{name}x", "x", f"optimiser/{name}")) if note == "renamed" else name] = odd[note]
        note = f"{note}: {name}"
    save_file(tensors, file, header)
    return note
