"""The state of a stream that was stopped, in a folder: another process continues with the same bits.

``state-N.safetensors`` is the method after N frames (`hardy.engine.adaptation_state`); ``stream.safetensors`` holds
what was measured, and names it. It is written last, so that the two always belong together.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hardy.adaptation.base import TestTimeAdaptation
from hardy.engine.adaptation_state import load_state, save_state
from hardy.engine.checkpoint import write_tensors
from hardy.engine.stream_progress import Progress
from hardy.engine.stream_table import Action, Alarms
from hardy.errors import InputError
from hardy.files import expanded
from hardy.ops.tensors import checksum, opened
from hardy.stored import json_value

__all__ = ["load", "save"]

FORMAT = "hardy-stream/1"
_NAME = "stream.safetensors"
_TENSORS = ("counts", "probes")


def save(live: TestTimeAdaptation, progress: Progress, folder: Path, owner: str) -> None:
    """Write the state of ``live`` and ``progress`` into ``folder``; a crash at any time leaves the earlier one or this.

    Raises:
        OSError: when it cannot be written.
    """
    place = expanded(folder)
    state = place / f"state-{progress.position}.safetensors"
    save_state(live, state)
    tensors: dict[str, Tensor] = {"counts": torch.stack(progress.counts)} if progress.counts else {}
    for moment, measured in progress.probes.items():
        tensors |= {f"probe/{moment}/{name}": counts for name, counts in measured.items()}
    values = {name: value for name, value in vars(progress).items() if name not in _TENSORS}
    text = json.dumps({**values, "state": state.name}, allow_nan=False)
    write_tensors(place / _NAME, tensors, {"format": FORMAT, "owner": owner, "progress": text})
    for other in place.glob("state-*.safetensors"):
        if other != state:
            other.unlink(missing_ok=True)


def load(live: TestTimeAdaptation, folder: Path, owner: str) -> Progress | None:
    """Restore ``live`` in place, and return what was measured; None when the folder has no state.

    Raises:
        InputError: for a damaged file, or the state of another stream.
    """
    file = expanded(folder) / _NAME
    if not file.exists():
        return None
    try:
        tensors, header = opened(file)
        if header.get("format") != FORMAT or header.pop("sha256", None) != checksum(tensors, header):
            raise ValueError(f"no {FORMAT}, or it does not match its checksum")
        values = json_value(header["progress"])
        progress, state = _progress(values, tensors), file.with_name(str(values["state"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: damaged, or not the state of a stream ({error}); remove the folder") from None
    if header["owner"] != owner:
        raise InputError(f"{file}: is the state of another stream; give another stream.folder, or remove it")
    load_state(live, state)
    return progress


def _progress(values: dict[str, Any], tensors: dict[str, Tensor]) -> Progress:
    """What was measured, of a file's JSON and tensors."""
    probes: dict[str, dict[str, Tensor]] = {}
    for name, counts in tensors.items():
        if name.startswith("probe/"):
            _, moment, domain = name.split("/", 2)
            probes.setdefault(moment, {})[domain] = counts
    plain = {name: value for name, value in values.items() if name != "state"}
    plain["places"] = [(int(round_), int(domain)) for round_, domain in plain["places"]]
    plain["skipped"] = [(int(place), str(name), str(why)) for place, name, why in plain["skipped"]]
    plain["actions"] = [Action(*one) for one in plain["actions"]]
    plain["alarms"] = Alarms(*plain["alarms"])
    return Progress(**plain, counts=list(tensors["counts"]) if "counts" in tensors else [], probes=probes)
