"""Checkpoints: the state that a run needs to resume, in one safetensors file that is written atomically.

Its tensors are the state of the algorithm and of the optimisers, and the moving average. Its header holds the rest
(step, best score, owner) as JSON. No pickle is read or written.
"""

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from hardy.errors import InputError, named
from hardy.files import remove, temporary
from hardy.ops.tensors import checksum, load_strictly, not_finite, opened
from hardy.stored import finite, is_integer, json_value

__all__ = [
    "FORMAT",
    "Checkpoint",
    "apart",
    "load_tensors",
    "read",
    "read_tensors",
    "restore_optimiser",
    "write",
    "write_tensors",
]

FORMAT = "hardy-checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``step`` steps.

    Attributes:
        owner: the recipe's digest and the stage that it belongs to; a run with another owner refuses it.
        step: optimiser steps made.
        best: the best validation score so far and its step, or None.
        algorithm: state of the algorithm by name.
        optimiser: ``optimiser.state_dict()``.
        average: the moving average by name, empty without one.
        optimisers: the ``state_dict()`` of each of the algorithm's own optimisers, by name.
        rest: checksum of the network's weights that a tuner freezes, which the checkpoint does not hold; empty when
            all weights are trained.
    """

    owner: str
    step: int
    best: tuple[float, int] | None
    algorithm: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Tensor]
    optimisers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rest: str = ""


def write_tensors(file: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file with its checksum in the header: under a temporary name, flushed, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    waiting = temporary(file)  # a folder: safetensors writes a temporary file of its own beside the given one
    remove(waiting)
    try:
        with named(file):
            waiting.mkdir()
            save_file(own := apart(tensors), waiting / file.name, {**header, "sha256": checksum(own, header)})
            with (waiting / file.name).open("rb") as handle:
                os.fsync(handle.fileno())
            (waiting / file.name).chmod(0o644)  # safetensors gives read permission to the owner only
            os.replace(waiting / file.name, file)
    except SafetensorError as error:
        raise OSError(f"{file}: cannot be written: {error}") from None
    finally:
        remove(waiting)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors that `write_tensors` wrote.

    Raises:
        InputError: when the file is missing or damaged.
    """
    try:
        return _intact(file)[0]
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: damaged or missing ({error}); start again in another run.folder") from None


def load_tensors(file: Path, network: nn.Module, rest: Mapping[str, Tensor] | None = None) -> None:
    """Load the tensors that `write_tensors` wrote, and those in ``rest``, into ``network``, in place.

    Raises:
        InputError: when the file is missing, damaged or of another network.
    """
    tensors = read_tensors(file)
    try:
        load_strictly(network, {**(rest or {}), **tensors})
    except ValueError as error:
        raise InputError(
            f"{file}: is of another network ({str(error)[:200]}); start again in another run.folder"
        ) from None


def _intact(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file that `write_tensors` wrote; old files have no checksum.

    Raises:
        OSError: when it is missing.
        ValueError: when it is damaged.
    """
    tensors, header = opened(file)
    expected = header.pop("sha256", None)
    if expected is not None and expected != checksum(tensors, header):
        raise ValueError("it does not match its checksum")
    if bad := not_finite(tensors):
        raise ValueError(f"{bad} holds NaN or infinity")
    return tensors, header


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` on the CPU, each with its own memory: weights that two layers share are written twice."""
    separate: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        memory = value.untyped_storage().data_ptr()
        separate[name] = value.clone() if memory in taken else value
        taken.add(memory)
    return separate


def write(file: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``file`` atomically."""
    tensors = {f"algorithm/{name}": value for name, value in checkpoint.algorithm.items()}
    tensors |= {f"average/{name}": value for name, value in checkpoint.average.items()}
    numbers: dict[str, Any] = {}
    own = {f"optimisers/{name}": of for name, of in checkpoint.optimisers.items()}
    for part, of in {"optimiser": checkpoint.optimiser, **own}.items():
        for index, state in of["state"].items():
            for name, value in state.items():
                (tensors if isinstance(value, Tensor) else numbers)[f"{part}/{index}/{name}"] = value
    header: dict[str, Any] = {"owner": checkpoint.owner, "step": checkpoint.step, "best": checkpoint.best}
    header["groups"] = _plain_groups(checkpoint.optimiser)
    if own:
        header["optimisers"] = {name: _plain_groups(of) for name, of in checkpoint.optimisers.items()}
    header["numbers"] = numbers
    if checkpoint.rest:
        header["rest"] = checkpoint.rest
    write_tensors(file, tensors, {"format": FORMAT, "state": json.dumps(header)})


def _plain_groups(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of an optimiser's ``state`` for JSON, without the betas, which the recipe or the algorithm sets."""
    return [{key: value for key, value in group.items() if key != "betas"} for group in state["param_groups"]]


def read(file: Path, owner: str) -> Checkpoint:
    """The checkpoint in ``file``.

    Raises:
        InputError: when the file is damaged, not a checkpoint of this version, or belongs to another run.
    """
    try:
        tensors, header = _intact(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: damaged or not a checkpoint ({error}); delete it to start again") from None
    if header.get("format") == FORMAT and header.keys() != {"format", "state"}:
        raise InputError(f"{file}: its header is damaged ({', '.join(header)}); delete it to start again")
    if header.get("format") != FORMAT:
        raise InputError(f"{file}: format {header.get('format')!r}, but this Hardy reads {FORMAT!r}; delete it")
    try:
        state = _checked(json_value(header["state"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: its header is damaged; delete it to start again ({error})") from None
    if state["owner"] != owner:
        raise InputError(
            f"{file}: belongs to another run ({state['owner']}, not {owner}): the recipe changed; "
            "use another run.folder, or delete the file to start again"
        )
    try:
        optimiser, own = _optimiser_states(tensors, state)
        parts: dict[str, dict[str, Tensor]] = {"algorithm": {}, "average": {}}
        for place, value in tensors.items():
            part, _, name = place.partition("/")
            if part not in ("optimiser", "optimisers"):
                parts[part][name] = value
    except (ValueError, KeyError) as error:
        raise InputError(f"{file}: its tensors are not a checkpoint's ({error}); delete it to start again") from None
    best = tuple(state["best"]) if state["best"] else None
    rest = state.get("rest", "")
    return Checkpoint(owner, state["step"], best, parts["algorithm"], optimiser, parts["average"], own, rest)


def _checked(state: Any) -> dict[str, Any]:
    """The header's ``state``, after a check that each value has the type that `write` gives it.

    Raises:
        KeyError, TypeError, ValueError: naming the wrong value.
    """
    owner, step, best, groups, numbers = (state[key] for key in ("owner", "step", "best", "groups", "numbers"))
    scored = best is None or (isinstance(best, list) and len(best) == 2 and finite(best[0]) and is_integer(best[1]))
    own = state.get("optimisers", {})  # absent without any, and in old checkpoints
    for name, good in (
        ("owner", isinstance(owner, str)),
        ("rest", isinstance(state.get("rest", ""), str)),
        ("step", is_integer(step)),
        ("best", scored),
        ("groups", _are_groups(groups)),
        ("numbers", isinstance(numbers, dict) and all(value is None or finite(value) for value in numbers.values())),
        ("optimisers", isinstance(own, dict) and all(_are_groups(each) for each in own.values())),
    ):
        if not good:
            raise ValueError(f"{name} is {state[name]!r}")
    for group in [*groups, *(group for each in own.values() for group in each)]:
        _check_group(group)
    return {**state, "optimisers": own}


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(group, dict) for group in value)


def _check_group(group: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a setting of a group that is neither a plain value nor a list of parameter indices."""
    for key, value in group.items():
        indices = key == "params" and isinstance(value, list) and all(is_integer(index) for index in value)
        if not indices and not isinstance(value, (str, int, float, type(None))):
            raise ValueError(f"{key} of a group is {value!r}")


def _optimiser_states(
    tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The state of the optimiser, and those of the algorithm's own optimisers by name.

    Raises:
        ValueError, KeyError: for a name of no optimiser.
    """
    outer: dict[str, Any] = {"state": {}, "param_groups": state["groups"]}
    own = {name: {"state": {}, "param_groups": groups} for name, groups in state["optimisers"].items()}
    for place, value in [*tensors.items(), *state["numbers"].items()]:
        part, _, rest = place.partition("/")
        if part == "optimiser":
            index, name = rest.split("/")
            outer["state"].setdefault(int(index), {})[name] = value
        elif part == "optimisers":
            whose, index, name = rest.rsplit("/", 2)
            own[whose]["state"].setdefault(int(index), {})[name] = value
    return outer, own


def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load ``state`` into ``optimiser`` in place; group settings that JSON does not hold do not change.

    Raises:
        ValueError: when it is the state of another optimiser; nothing is changed then.
    """
    saved, now = state["param_groups"], optimiser.param_groups
    _refuse_other(optimiser, state)
    groups = [
        {**{k: v for k, v in here.items() if k != "params"}, **there} for here, there in zip(now, saved, strict=True)
    ]
    optimiser.load_state_dict({"state": state["state"], "param_groups": groups})


def _refuse_other(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a state with other groups, settings or shapes than ``optimiser``."""
    saved, now = state["param_groups"], optimiser.param_groups
    own = optimiser.state_dict()["param_groups"]
    if [there.get("params") for there in saved] != [here["params"] for here in own]:
        raise ValueError("its groups hold other parameters")
    for there, here in zip(saved, now, strict=True):
        for key, value in there.items():
            if key not in here:
                raise ValueError(f"an unknown setting {key!r}")
            if not finite(value) if key == "lr" else key != "params" and value != here[key]:
                raise ValueError(f"{key} is {value!r} where this optimiser has {here[key]!r}")
    _refuse_other_slots(optimiser, state["state"])


def _refuse_other_slots(optimiser: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise `ValueError` for values of a parameter that ``optimiser`` does not have, or has in another shape."""
    order = [value for group in optimiser.param_groups for value in group["params"]]
    expected = _slots(optimiser)
    for index, slots in state.items():
        if not 0 <= index < len(order):
            raise ValueError(f"a state of parameter {index}, of {len(order)}")
        if slots.keys() != expected.keys():
            raise ValueError(f"parameter {index} has {', '.join(slots) or 'nothing'}, not {', '.join(expected)}")
        for name, value in slots.items():
            shape = order[index].shape if expected[name] else torch.Size()
            if not isinstance(value, Tensor) or value.shape != shape:
                raise ValueError(f"{name} of parameter {index} is not of shape {tuple(shape)}")


def _slots(optimiser: torch.optim.Optimizer) -> dict[str, bool]:
    """The values that ``optimiser`` has for a parameter, by name, and whether each has the parameter's shape.

    They are read from one step of an optimiser of the same class.
    """
    kind = type(optimiser)
    value = torch.nn.Parameter(torch.zeros(2))
    value.grad = torch.zeros(2)
    taken = inspect.signature(kind).parameters
    one = kind([value], **{name: given for name, given in optimiser.defaults.items() if name in taken})
    one.step()
    return {name: slot.shape == value.shape for name, slot in one.state[value].items()}
