"""The state of a network that adapts, in one safetensors file: another process can continue with exactly the same bits.

The file holds the tensors of the method and of its optimisers. Its header holds the seed, the domain that
was entered, the settings of the optimisers and the method's class as JSON. No pickle is read or written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy.adaptation.base import LONGEST_DOMAIN, State, TestTimeAdaptation
from hardy.engine.checkpoint import write_tensors
from hardy.errors import InputError
from hardy.files import expanded
from hardy.ops.tensors import checksum, opened
from hardy.stored import is_integer, json_value

__all__ = ["load_state", "save_state"]

FORMAT = "hardy-adaptation/1"


def save_state(live: TestTimeAdaptation, file: Path | str) -> None:
    """Write the state of ``live`` to ``file`` atomically.

    Raises:
        OSError: when it cannot be written.
    """
    state = live.state()
    tensors = {f"tensor/{name}": value for name, value in state["tensors"].items()}
    optimisers: dict[str, Any] = {}
    for name, one in state["optimisers"].items():
        values: dict[int, dict[str, Any]] = {}
        for index, slots in one["state"].items():
            values[index] = {slot: value for slot, value in slots.items() if not isinstance(value, Tensor)}
            tensors |= {f"{name}/{index}/{slot}": v for slot, v in slots.items() if isinstance(v, Tensor)}
        optimisers[name] = {"groups": one["param_groups"], "values": values}
    text = json.dumps({"seed": state["seed"], "domain": state["domain"], "optimisers": optimisers}, allow_nan=False)
    write_tensors(expanded(file), tensors, {"format": FORMAT, "method": _name(live), "state": text})


def load_state(live: TestTimeAdaptation, file: Path | str) -> None:
    """Restore in ``live``, in place, the state that `save_state` wrote; `reset` still returns to the start of ``live``.

    Args:
        live: the same method with the same options on the same network.
        file: written by `save_state`.

    Raises:
        InputError: for a file that is missing, damaged, or of another method or network; ``live`` does not change then.
    """
    path = expanded(file)
    try:
        tensors, header = opened(path)
        if header.get("format") != FORMAT or header.pop("sha256", None) != checksum(tensors, header):
            raise ValueError(f"no {FORMAT}, or it does not match its checksum")
        method, state = header["method"], _state(tensors, json_value(header["state"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged, or not the state of a network that adapts ({error})") from None
    if method != _name(live):
        raise InputError(f"{path}: is the state of {method}, not of {_name(live)}; give a file of the same method")
    try:
        live.restore(state)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _name(live: TestTimeAdaptation) -> str:
    return f"{type(live).__module__}:{type(live).__qualname__}"


def _state(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> State:
    """The state of these tensors and this JSON."""
    if not is_integer(header["seed"], -(2**63)):
        raise ValueError(f"seed is {header['seed']!r}")
    domain = header.get("domain")  # files of earlier versions have no domain
    if not (domain is None or (isinstance(domain, str) and 0 < len(domain.encode()) <= LONGEST_DOMAIN)):
        raise ValueError(f"domain is {domain!r}")
    optimisers: dict[str, dict[str, Any]] = {}
    for name, one in header["optimisers"].items():
        values = {int(index): dict(slots) for index, slots in one["values"].items()}
        groups = [{key: _plain(key, value) for key, value in group.items()} for group in one["groups"]]
        optimisers[name] = {"state": values, "param_groups": groups}
    own = {}
    for place, value in tensors.items():
        if place.startswith("tensor/"):
            own[place.removeprefix("tensor/")] = value
        else:
            name, index, slot = place.rsplit("/", 2)
            optimisers[name]["state"][int(index)][slot] = value
    return {"seed": header["seed"], "domain": domain, "tensors": own, "optimisers": optimisers}


def _plain(key: str, value: Any) -> Any:
    """A setting of an optimiser's group; JSON turned its tuples into lists."""
    return tuple(value) if isinstance(value, list) and key != "params" else value
