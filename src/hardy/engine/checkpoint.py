"""Checkpoints: all that a run needs to go on, in one safetensors file that is whole or absent.

Tensors are the algorithm's state, the optimiser's and the moving average; everything else (step, best score, what
the checkpoint belongs to) is JSON in the file's header. No pickle is read or written.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hardy.errors import InputError, named
from hardy.files import remove, temporary

__all__ = ["FORMAT", "Checkpoint", "apart", "read", "read_tensors", "restore_optimiser", "write", "write_tensors"]

FORMAT = "hardy-checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``step`` steps.

    Attributes:
        owner: what it belongs to, the recipe's digest and the stage; another owner refuses it.
        step: optimiser steps made.
        best: the best validation score so far and its step, or None.
        algorithm: state of the algorithm by name.
        optimiser: ``optimiser.state_dict()``.
        average: the moving average by name, empty without one.
    """

    owner: str
    step: int
    best: tuple[float, int] | None
    algorithm: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Tensor]


def write_tensors(file: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it to disk, then rename it into place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    waiting = temporary(file)  # a folder, since safetensors writes under a name of its own beside the one given
    remove(waiting)
    try:
        with named(file):
            waiting.mkdir()
            save_file(apart(tensors), waiting / file.name, dict(header))
            with (waiting / file.name).open("rb") as handle:
                os.fsync(handle.fileno())
            (waiting / file.name).chmod(0o644)  # safetensors writes for the owner alone
            os.replace(waiting / file.name, file)
    except SafetensorError as error:
        raise OSError(f"{file}: cannot be written: {error}") from None
    finally:
        remove(waiting)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors that `write_tensors` wrote.

    Raises:
        InputError: when the file is gone or torn.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: torn or gone ({error}); start again in another run.folder") from None


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` on the CPU, each with memory of its own: weights that two layers share are written twice."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        memory = value.untyped_storage().data_ptr()
        apart[name] = value.clone() if memory in taken else value
        taken.add(memory)
    return apart


def write(file: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``file`` whole or not at all."""
    tensors = {f"algorithm/{name}": value for name, value in checkpoint.algorithm.items()}
    tensors |= {f"average/{name}": value for name, value in checkpoint.average.items()}
    numbers: dict[str, Any] = {}
    for index, state in checkpoint.optimiser["state"].items():
        for name, value in state.items():
            place = f"optimiser/{index}/{name}"
            if isinstance(value, Tensor):
                tensors[place] = value
            else:
                numbers[place] = value
    header: dict[str, Any] = {"owner": checkpoint.owner, "step": checkpoint.step, "best": checkpoint.best}
    header["groups"] = [
        {key: value for key, value in group.items() if key != "betas"} for group in checkpoint.optimiser["param_groups"]
    ]
    header["numbers"] = numbers
    write_tensors(file, tensors, {"format": FORMAT, "state": json.dumps(header)})


def read(file: Path, owner: str) -> Checkpoint:
    """The checkpoint in ``file``.

    Raises:
        InputError: when the file is torn, not a checkpoint of this version, or belongs to another run.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: torn or not a checkpoint ({error}); delete it to start again") from None
    if header.get("format") != FORMAT:
        raise InputError(f"{file}: format {header.get('format')!r}, but this Hardy reads {FORMAT!r}; delete it")
    try:
        state = json.loads(header["state"])
        found = state["owner"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: its header is torn; delete it to start again") from None
    if found != owner:
        raise InputError(
            f"{file}: belongs to another run ({found}, not {owner}): the recipe changed; "
            "use another run.folder, or delete the file to start again"
        )
    parts: dict[str, dict[str, Tensor]] = {"algorithm": {}, "average": {}, "optimiser": {}}
    for place, value in tensors.items():
        part, name = place.split("/", 1)
        parts[part][name] = value
    best = tuple(state["best"]) if state["best"] else None
    optimiser = _optimiser_state(parts["optimiser"], state)
    return Checkpoint(owner, state["step"], best, parts["algorithm"], optimiser, parts["average"])


def _optimiser_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> dict[str, Any]:
    slots: dict[int, dict[str, Any]] = {}
    for place, value in [*tensors.items(), *((k.split("/", 1)[1], v) for k, v in state["numbers"].items())]:
        index, name = place.split("/")
        slots.setdefault(int(index), {})[name] = value
    return {"state": slots, "param_groups": state["groups"]}


def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load ``state`` into ``optimiser`` in place; group settings that JSON does not hold stay as they are."""
    groups = [
        {**{k: v for k, v in now.items() if k != "params"}, **saved}
        for now, saved in zip(optimiser.param_groups, state["param_groups"], strict=True)
    ]
    optimiser.load_state_dict({"state": state["state"], "param_groups": groups})
