"""Comparable costs of the networks of a report: milliseconds, parameters, multiply-accumulates.

The load of a machine changes, so times from different moments are hard to compare. Two networks that were timed in
turns, by ``hardy prune`` or ``hardy bench --against``, were slowed down alike: the median ratio of their pairs is
reliable. So, wherever there is such a ratio, the time of a network is this ratio times that of the other network, which
may itself be a ratio times that of a third one. At the end of this chain is their `reference`: its time is the one from
``hardy bench`` or, without it, the median over all measurements in turns with it. A network without any ratio has its
own time, and no reference. All milliseconds of a report are for one runtime, the one in which most networks were timed,
and those of ``hardy bench`` for one size, device and number of threads, chosen in the same way.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hardy.records import Record
from hardy.report.runs import Network, Run

__all__ = ["price"]

_RUNTIMES = ("onnxruntime", "eager")

_Folders = Mapping[Path, Sequence[Network]]


@dataclass(frozen=True)
class _Turns:
    """A network that was timed in turns with another one: the ratio of their times, and the time of the other."""

    other: Network
    ratio: float
    base: float


@dataclass(frozen=True)
class _Time:
    """Milliseconds, and the reference of the ratio that they come from; see above."""

    milliseconds: float
    reference: Network | None = None


def price(made: Sequence[Network]) -> str:
    """Fill in parent, costs and reference of the networks ``made``, in place; returns the runtime of their
    milliseconds."""
    at: dict[Path, list[Network]] = {}
    for network in made:
        if not (network.first.adapt or network.first.peer):
            at.setdefault(network.first.folder.resolve(), []).append(network)
    for network in made:
        network.parent = _parent(network, at)
    timed = {runtime: _times(made, runtime, at) for runtime in _RUNTIMES}
    runtime = max(_RUNTIMES, key=lambda one: len(timed[one]))
    for network in made:
        if time := timed[runtime].get(id(network)):
            network.milliseconds, network.reference = time.milliseconds, time.reference
    _sizes(made)
    return runtime


def _sizes(made: Sequence[Network]) -> None:
    """Fill in parameters and multiply-accumulates of the networks ``made``, in place."""
    children: dict[int, list[Network]] = {}
    for network in made:
        if network.parent and network.step == "prune":
            children.setdefault(id(network.parent), []).append(network)
    for network in made:
        for name in ("parameters", "gmacs"):
            known = [network.first.cost(f"{name}_after"), network.first.cost(name)]
            known += [child.first.cost(f"{name}_before") for child in children.get(id(network), [])]
            setattr(network, name, next((value for value in known if value is not None), None))
    for network in made:  # a network that adapts has the size of its parent
        if network.step == "adapt" and network.parent:
            network.parameters = network.parameters or network.parent.parameters
            network.gmacs = network.gmacs or network.parent.gmacs


def _parent(network: Network, at: _Folders) -> Network | None:
    """The network that ``network`` started from or, if there is none, its teacher."""
    run = network.first
    if run.adapt or run.peer:
        return _in([run.folder], network, at)
    started, teacher = run.note("network"), run.note("teacher")
    if isinstance(started, str) and "/" in started.replace("\\", "/"):  # the others are names of architectures
        return _in(_places(started, run), network, at)
    return _in(_places(teacher, run), network, at) if isinstance(teacher, str) else None


def _places(named: str, run: Run) -> list[Path]:
    """Possible folders of the run that the records of ``run`` call ``named``.

    It is this path or, if both folders were moved together, a folder of this name beside ``run``."""
    return [Path(named), run.folder.parent / Path(named).name]


def _in(places: Sequence[Path], network: Network, at: _Folders) -> Network | None:
    """The first network other than ``network`` in one of these folders."""
    same = [one for place in dict.fromkeys(each.resolve() for each in places) for one in at.get(place, [])]
    return next((one for one in same if one is not network), None)


def _times(made: Sequence[Network], runtime: str, at: _Folders) -> dict[int, _Time]:
    """`id` of a network -> its time in ``runtime``."""
    benches = _comparable(made, runtime)
    turns = {id(one): each for one in made if (each := _turns(one, runtime, at, benches[id(one)]))}
    bases: dict[int, list[float]] = {}
    for each in turns.values():
        bases.setdefault(id(each.other), []).append(each.base)
    found: dict[int, _Time] = {}
    for network in made:
        chain = [network]  # to the network whose time is known, or that was timed in turns with no further one
        while id(chain[-1]) not in found and (step := turns.get(id(chain[-1]))) and step.other not in chain:
            chain.append(step.other)
        last = chain.pop()
        if id(last) not in found:
            measured = bases.get(id(last))
            own = _alone(last, runtime, benches[id(last)]) or (median(measured) if measured else None)
            if own is None:
                continue
            found[id(last)] = _Time(own, last if measured else None)
        for one in reversed(chain):
            step = turns[id(one)]
            base = found[id(step.other)]
            found[id(one)] = _Time(step.ratio * base.milliseconds, base.reference)
    return found


def _turns(network: Network, runtime: str, at: _Folders, benches: Sequence[Record]) -> _Turns | None:
    """The measurement of ``network`` in turns with another network of the report: the latest of its ``benches`` or,
    without it, that of ``hardy prune``."""
    run = network.first
    values: dict[str, tuple[Network, float]] = {}
    for one in benches:
        named = one.notes.get("against")
        other = _in(_places(named, run), network, at) if isinstance(named, str) else None
        if other and one.value:
            values[one.metric] = other, one.value
    ratio, base = values.get("ratio"), values.get("milliseconds_p50_against")
    if ratio and base and ratio[0] is base[0]:
        return _Turns(ratio[0], ratio[1], base[1])
    before, after = (run.cost(f"milliseconds_p50_{runtime}_{when}") for when in ("before", "after"))
    if network.parent and network.step == "prune" and before and after:
        return _Turns(network.parent, run.cost(f"ratio_{runtime}") or after / before, before)
    return None


def _alone(network: Network, runtime: str, benches: Sequence[Record]) -> float | None:
    """The latest time of ``network`` in its ``benches`` or else of ``hardy prune``."""
    values = [one.value for one in benches if one.metric == "milliseconds_p50"]
    return values[-1] if values else network.first.cost(f"milliseconds_p50_{runtime}_after")


def _comparable(made: Sequence[Network], runtime: str) -> dict[int, list[Record]]:
    """`id` of a network -> what ``hardy bench`` recorded for it in the setting in which most networks were timed.

    Of several such settings it is the one that is the latest of most networks.
    """
    every = {id(one): _benches(one.first, runtime) for one in made}
    counts = Counter(setting for lines in every.values() for setting in {_setting(line) for line in lines})
    latest = Counter(_setting(lines[-1]) for lines in every.values() if lines)
    usual = max(sorted(counts), key=lambda one: (counts[one], latest[one]), default="")
    return {name: [line for line in lines if _setting(line) == usual] for name, lines in every.items()}


def _setting(bench: Record) -> str:
    """The size, the device and the number of threads of a ``bench``, as a text."""
    return json.dumps([bench.notes.get(name) for name in ("size", "device", "threads")])


def _benches(run: Run, runtime: str) -> list[Record]:
    """What ``hardy bench`` recorded for one image and the unchanged network."""
    if run.adapt or run.peer:
        return []
    return [one for one in run.lines if (one.stage, one.target) == ("bench", runtime) and one.notes.get("batch") == 1]
