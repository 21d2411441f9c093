"""Removal: channels are cut out of the parameters, so the network gets smaller.

A plan holds the indices kept on each side that lost channels, relative to the dense network:
``{module: {"out": [...], "in": [...]}}``, as plain JSON. Further pruning composes the plans. `replay` cuts a newly
built dense network to the same shape without a trace, so a pruned artefact is loaded from its weights and its plan.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.changes import Plan, with_plan
from hardy.pruning.coupled import Unit
from hardy.pruning.cut import cut, width
from hardy.pruning.mask import mask
from hardy.pruning.norms import unmask
from hardy.pruning.tracing.declared import DECLARED
from hardy.stored import is_integer

__all__ = ["Plan", "remove", "replay"]


def remove(network: nn.Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> Plan:
    """Cut the channels ``removed`` of ``units`` out of ``network``, in place.

    Channels of a unit ``within`` another unit are masked, not cut. Parameters that lost channels are new tensors, so a
    new optimiser is needed. A `Network` stores the plan in its ``changes``; consecutive plans are composed. Units found
    before the cut are no longer valid.

    Returns:
        The plan relative to the dense network; for a module that is not a `Network`, relative to the module before the
        cut.
    """
    lost: dict[str, dict[str, set[int]]] = {}
    mask(network, [unit for unit in units if unit.within], removed)
    for unit in (unit for unit in units if not unit.within):
        for member in unit.members:
            gone = [i for channel in removed.get(unit.name, ()) for i in member.channels[channel]]
            if gone:
                lost.setdefault(member.module, {}).setdefault(member.side, set()).update(gone)
    plan: Plan = {}
    for name, sides in lost.items():
        module = network.get_submodule(name)
        unmask(module)
        for side, gone_here in sides.items():
            kept = [i for i in range(width(module, side)) if i not in gone_here]
            cut(module, side, kept)
            plan.setdefault(name, {})[side] = kept
    if isinstance(network, Network):
        network.changes = with_plan(network.changes, plan)
        return network.plan
    return plan


def replay(network: nn.Module, plan: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Cut a dense ``network`` to the channels that ``plan`` keeps, in place.

    Raises:
        InputError: if the plan is not valid, or was made for another network; nothing is cut then.
    """
    modules = dict(network.named_modules())
    _check(plan, modules)
    for name, sides in plan.items():
        for side, kept in sides.items():
            cut(modules[name], side, list(kept))
    if isinstance(network, Network):
        network.changes = with_plan(network.changes, plan)


def _check(plan: Any, modules: Mapping[str, nn.Module]) -> None:
    """Raise `InputError` for a plan that is not valid, or was made for another network."""
    if not isinstance(plan, Mapping) or not all(isinstance(sides, Mapping) for sides in plan.values()):
        raise InputError(f"the plan is {plan!r}; it must be {{module: {{side: [channels kept]}}}}")
    for name, sides in plan.items():
        for side, kept in sides.items():
            where = f"channels of {name!r} ({side})"
            if not isinstance(kept, list | tuple) or not all(is_integer(channel) for channel in kept):
                raise InputError(f"the plan keeps {kept!r} as {where}; it must be a list of whole numbers from 0 up")
            if not kept:
                raise InputError(f"the plan keeps none of the {where}; it must keep at least one")
            if any(before >= after for before, after in pairwise(kept)):
                raise InputError(f"the plan keeps {kept!r} as {where}; they must ascend, each once")
            size = _width(modules[name], side) if name in modules else 0
            if kept[-1] >= size:
                raise InputError(
                    f"the plan keeps channel {kept[-1]} of {name!r} ({side}), which has {size}: "
                    "it was made for another network"
                )


def _width(module: nn.Module, side: Any) -> int:
    """`width`, and 0 for an unknown side."""
    known = isinstance(side, str) and (side in ("out", "in", *DECLARED) or side.partition(":")[2] in tuple("01234"))
    return width(module, side) if known else 0
