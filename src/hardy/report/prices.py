"""Comparable costs of the networks of a report: milliseconds, parameters, multiply-accumulates.

A pruned network was timed in turns with the network that it came from, so only the ratio of the two times is reliable.
The ratio is multiplied by the time of that network: the one from ``hardy bench`` or, without it, the median over all
measurements in turns. All milliseconds of a report are for one runtime, the one in which most networks were timed, and
those of ``hardy bench`` for one size, device and number of threads, chosen in the same way.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from hardy.report.runs import Network, Run

__all__ = ["price"]

_RUNTIMES = ("onnxruntime", "eager")


def price(made: Sequence[Network]) -> str:
    """Fill in parent and costs of the networks ``made``, in place; returns the runtime of their milliseconds."""
    _parents(made)
    timed = {runtime: _times(made, runtime) for runtime in _RUNTIMES}
    runtime = max(_RUNTIMES, key=lambda one: len(timed[one]))
    for place, network in enumerate(made):
        network.milliseconds = timed[runtime].get(place)
        children = [one for one in made if one.parent is network and one.step == "prune"]
        for name in ("parameters", "gmacs"):
            known = [network.first.cost(f"{name}_after"), network.first.cost(name)]
            known += [child.first.cost(f"{name}_before") for child in children]
            setattr(network, name, next((value for value in known if value is not None), None))
    for network in made:  # a network that adapts has the size of its parent
        if network.step == "adapt" and network.parent:
            network.parameters = network.parameters or network.parent.parameters
            network.gmacs = network.gmacs or network.parent.gmacs
    return runtime


def _parents(made: Sequence[Network]) -> None:
    at: dict[Path, list[Network]] = {}
    for network in made:
        if not (network.first.adapt or network.first.peer):
            at.setdefault(network.first.folder.resolve(), []).append(network)
    for network in made:
        run = network.first
        places = [run.folder] if run.adapt or run.peer else _named(run)
        same = [one for place in dict.fromkeys(each.resolve() for each in places) for one in at.get(place, [])]
        network.parent = next((one for one in same if one is not network), None)


def _named(run: Run) -> list[Path]:
    """Possible folders of the run that ``run`` started from or, if there is none, of its teacher.

    It is the recorded path or, if both folders were moved together, a folder of this name beside ``run``."""
    for named in (run.note("network"), run.note("teacher")):
        if isinstance(named, str) and "/" in named.replace("\\", "/"):
            return [Path(named), run.folder.parent / Path(named).name]
    return []


def _times(made: Sequence[Network], runtime: str) -> dict[int, float]:
    """Place of a network -> its milliseconds in ``runtime``."""
    benched = [_benched(one.first, runtime) for one in made]
    setting = _usual(benched)
    found = {place: values[setting] for place, values in enumerate(benched) if setting in values}
    before, after = f"milliseconds_p50_{runtime}_before", f"milliseconds_p50_{runtime}_after"
    for place, network in enumerate(made):
        children = [one.first.cost(before) for one in made if one.parent is network and one.step == "prune"]
        if place not in found and (known := [value for value in children if value]):
            found[place] = median(known)
    for place, network in enumerate(made):
        own, base = network.first.cost(after), network.first.cost(before)
        if place not in found and own is not None:
            parent = next((at for at, one in enumerate(made) if one is network.parent and at in found), None)
            found[place] = own if parent is None or not base else own / base * found[parent]
    return found


def _benched(run: Run, runtime: str) -> dict[str, float]:
    """Setting -> the latest median time for one image that ``hardy bench`` recorded for the unchanged network.

    A setting is a text with the size, the device and the number of threads; the latest is the last one.
    """
    found: dict[str, float] = {}
    for one in () if run.adapt or run.peer else run.lines:
        ours = (one.stage, one.target, one.metric) == ("bench", runtime, "milliseconds_p50")
        if ours and one.notes.get("batch") == 1 and one.value is not None:
            setting = json.dumps([one.notes.get(name) for name in ("size", "device", "threads")])
            found.pop(setting, None)
            found[setting] = one.value
    return found


def _usual(benched: Sequence[Mapping[str, float]]) -> str:
    """The setting in which most networks were timed; of several, the one that is the latest of most networks."""
    counts = Counter(setting for values in benched for setting in values)
    latest = Counter(list(values)[-1] for values in benched if values)
    return max(counts, key=lambda one: (counts[one], latest[one]), default="")
