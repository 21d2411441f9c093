"""The changes made to a network after it was built, in order: channels pruned, a tuner attached, a tuner merged.

Each change is plain JSON: ``{"change": "prune", "plan": {...}}``, ``{"change": "tune", "name": ..., "options": {...}}``
or ``{"change": "merge"}``. Replayed in order on a newly built network they restore its structure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hardy.errors import InputError, quoted

__all__ = ["Change", "Plan", "check_changes", "plan_of", "with_plan"]

Plan = dict[str, dict[str, list[int]]]
"""module name -> side (as in `hardy.pruning.units.Member`) -> the channels kept, ascending."""

Change = dict[str, Any]

_KEYS = {"prune": {"change", "plan"}, "tune": {"change", "name", "options"}, "merge": {"change"}}
"""The keys of each kind of change."""

_MOST = 1000
"""The most changes that a file may list."""


def plan_of(changes: Sequence[Change]) -> Plan:
    """The channels kept by all pruning in ``changes`` together, as indices into the network before the first change.

    A module that a tuner renamed is listed under each of its names.
    """
    plan: Plan = {}
    for change in changes:
        if change["change"] == "prune":
            plan = _composed(plan, change["plan"])
    return plan


def with_plan(changes: Sequence[Change], plan: Mapping[str, Mapping[str, Sequence[int]]]) -> list[Change]:
    """``changes`` and one more pruning, which keeps ``plan`` of the present channels; two in a row are joined."""
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
        if kind != "prune" and tuned == (kind == "tune"):
            raise InputError(f"{where} is a {kind}, but {'a' if tuned else 'no'} tuner is attached there")
        tuned = kind == "tune" or (tuned and kind != "merge")
