"""The changes made to a network after it was built, in order; a newly built network gets its form by replaying them.

Each change is plain JSON:

    {"change": "prune", "plan": {...}}                      channels were removed
    {"change": "tune", "name": ..., "options": {...}}       a tuner was attached
    {"change": "merge"}                                     that tuner was merged into the weights
    {"change": "fold", "parts": [...], "folded": [...], "biased": [...]}
                                                            batch norms were folded into other layers: timm
        re-parameterised ``parts``, the batch norms ``folded`` are gone, and the layers ``biased`` got a bias
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hardy.errors import InputError, quoted

__all__ = ["Change", "Plan", "check_changes", "plan_of", "refuse_folded", "with_plan"]

Plan = dict[str, dict[str, list[int]]]
"""module name -> side (as in `hardy.pruning.units.Member`) -> the channels kept, ascending."""

Change = dict[str, Any]

_KEYS = {
    "prune": {"change", "plan"},
    "tune": {"change", "name", "options"},
    "merge": {"change"},
    "fold": {"change", "parts", "folded", "biased"},
}
"""The keys of each kind of change."""

_MOST = 1000
"""The largest number of changes that a file may list."""


def plan_of(changes: Sequence[Change]) -> Plan:
    """The channels kept by all pruning in ``changes`` together, as indices into the network before the first change.

    A module that a tuner renamed is listed under each of its names.
    """
    plan: Plan = {}
    for change in changes:
        if change["change"] == "prune":
            plan = _composed(plan, change["plan"])
    return plan


def refuse_folded(changes: Sequence[Change], verb: str) -> None:
    """Refuse to ``verb`` a network whose batch norms were folded into other layers.

    Raises:
        InputError: if ``changes`` contain a fold.
    """
    if any(change["change"] == "fold" for change in changes):
        raise InputError(
            f"the batch norms of this network are folded into other layers, so hardy does not {verb} it; "
            f"{verb} the network before folding"
        )


def with_plan(changes: Sequence[Change], plan: Mapping[str, Mapping[str, Sequence[int]]]) -> list[Change]:
    """``changes`` and one more pruning, which keeps ``plan`` of the current channels; consecutive prunings become
    one."""
    before: Mapping[str, Mapping[str, Sequence[int]]] = {}
    if changes and changes[-1]["change"] == "prune":
        *changes, last = changes
        before = last["plan"]
    plan = _composed(before, plan)
    return [*changes, {"change": "prune", "plan": plan}] if plan else list(changes)


def _composed(
    earlier: Mapping[str, Mapping[str, Sequence[int]]], later: Mapping[str, Mapping[str, Sequence[int]]]
) -> Plan:
    """One plan for pruning by ``earlier`` and then by ``later``."""
    both: Plan = {name: {side: list(kept) for side, kept in sides.items()} for name, sides in earlier.items()}
    for name, sides in later.items():
        for side, kept in sides.items():
            before = both.setdefault(name, {}).get(side)
            both[name][side] = list(kept) if before is None else [before[i] for i in kept]
    return both


def check_changes(changes: Any) -> None:
    """Check a list of changes; plans are checked when they are replayed, tuner options by the registry.

    Raises:
        InputError: naming the entry, its value and the allowed values.
    """
    if not isinstance(changes, list) or len(changes) > _MOST:
        raise InputError(f"changes is {quoted(changes)}; it must be a list of at most {_MOST} changes")
    tuned = False
    for number, change in enumerate(changes):
        where = f"changes[{number}]"
        kind = change.get("change") if isinstance(change, Mapping) else None
        if not isinstance(kind, str) or kind not in _KEYS:
            raise InputError(f'{where} is {quoted(change)}; it must be {{"change": one of {", ".join(_KEYS)}, ...}}')
        if change.keys() != _KEYS[kind]:
            have, want = ", ".join(map(str, sorted(change))), ", ".join(sorted(_KEYS[kind]))
            raise InputError(f"{where} ({kind}) has the entries {have}; it must have: {want}")
        if kind == "tune" and not (isinstance(change["name"], str) and isinstance(change["options"], Mapping)):
            raise InputError(f"{where}: name {quoted(change['name'])} must be a string and options a mapping")
        if kind == "fold" and (wrong := [key for key in _NAMES if not _texts(change[key])]):
            raise InputError(f"{where}: {wrong[0]} {quoted(change[wrong[0]])} must be a list of different names")
        if kind in ("tune", "merge") and tuned == (kind == "tune"):
            raise InputError(f"{where} is a {kind}, but {'a' if tuned else 'no'} tuner is attached there")
        tuned = kind == "tune" or (tuned and kind != "merge")


_NAMES = ("parts", "folded", "biased")
"""The entries of a ``fold`` that list names."""


def _texts(value: Any) -> bool:
    """Whether ``value`` is a list of different strings."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value) and len(set(value)) == len(value)
