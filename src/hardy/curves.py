"""Training curves: the terms of a run by step, in ``curves.jsonl`` beside its records.

A line is one step of one stage: ``{"stage": "train", "step": 20, "values": {"loss": 1.2}}``. A resumed run repeats the
steps after its checkpoint, so the last line of a step is used. An incomplete line is left out.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from hardy.errors import named
from hardy.stored import contents, finite, is_integer, json_value

__all__ = ["FILE", "Curve", "append", "read"]

FILE = "curves.jsonl"

Curve = list[tuple[int, float]]
"""(step, value), in order of the steps."""


def append(folder: Path, stage: str, step: int, values: Mapping[str, float]) -> None:
    """Append the ``values`` of ``step``; those that are not finite are left out.

    Raises:
        OSError: when it cannot be written.
    """
    known = {name: float(f"{value:.6g}") for name, value in values.items() if math.isfinite(value)}
    if known:
        with named(folder / FILE), (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, "values": known}) + "\n")


def read(folder: Path) -> dict[str, dict[str, Curve]]:
    """The curves in ``folder``: stage -> term -> curve; empty if there are none.

    Raises:
        OSError: when the file cannot be read.
        InputError: when it is a pipe or a device.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    found: dict[str, dict[str, dict[int, float]]] = {}
    for line in contents(file).decode("utf-8", "replace").split("\n"):
        try:
            values = json_value(line)
            stage, step, terms = str(values["stage"]), values["step"], dict(values["values"])
        except (ValueError, TypeError, KeyError):
            continue
        for name, value in terms.items() if is_integer(step) else ():
            if finite(value):
                found.setdefault(stage, {}).setdefault(name, {})[step] = float(value)
    return {stage: {name: sorted(points.items()) for name, points in terms.items()} for stage, terms in found.items()}
