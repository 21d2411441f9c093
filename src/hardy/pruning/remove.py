"""Removal: channels are cut out of the parameters, so the network is smaller in fact.

What was kept is written down as a plan, relative to the dense network: ``{module: {"out": [...], "in": [...]}}``, the
indices kept on each side that lost some. A plan is plain JSON; pruning again composes it; `replay` cuts a freshly
built dense network to the same shape without tracing anything, so a pruned artefact loads from its weights and plan.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.obstacles import is_depthwise
from hardy.pruning.units import Unit

__all__ = ["Plan", "remove", "replay"]

Plan = dict[str, dict[str, list[int]]]
"""module name -> side (``"out"``, ``"in"``) -> the channels kept, ascending indices of the dense network's."""


def remove(network: nn.Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> Plan:
    """Cut the channels ``removed`` of ``units`` out of ``network``, in place.

    Parameters that lost channels are new tensors: an optimiser must be made anew. A `Network` remembers the plan in
    its attribute ``plan``, composed with what it lost before; units found before are stale afterwards.

    Returns:
        The plan relative to the network's dense form (for a module that is no `Network`, to its form before).
    """
    lost: dict[str, dict[str, set[int]]] = {}
    for unit in units:
        for member in unit.members:
            gone = [i for channel in removed.get(unit.name, ()) for i in member.channels[channel]]
            if gone:
                lost.setdefault(member.module, {}).setdefault(member.side, set()).update(gone)
    plan: Plan = {}
    for name, sides in lost.items():
        module = network.get_submodule(name)
        for side, gone_here in sides.items():
            kept = [i for i in range(_width(module, side)) if i not in gone_here]
            _cut(module, side, kept)
            plan.setdefault(name, {})[side] = kept
    if isinstance(network, Network):
        network.plan = plan = _composed(network.plan, plan)
    return plan


def replay(network: nn.Module, plan: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Cut a dense ``network`` to the channels that ``plan`` keeps, in place.

    Raises:
        InputError: when the plan was made for another network.
    """
    modules = dict(network.named_modules())
    for name, sides in plan.items():
        for side, kept in sides.items():
            width = _width(modules[name], side) if name in modules else 0
            if not kept or max(kept) >= width:
                raise InputError(
                    f"the plan keeps channel {max(kept, default=-1)} of {name!r} ({side}), which has {width}: "
                    "it was made for another network"
                )
            _cut(modules[name], side, list(kept))
    if isinstance(network, Network):
        network.plan = _composed(network.plan, {n: {s: list(k) for s, k in sides.items()} for n, sides in plan.items()})


def _composed(earlier: Mapping[str, Mapping[str, Sequence[int]]], later: Plan) -> Plan:
    """The plan that keeps what ``later`` keeps of what ``earlier`` kept."""
    both: Plan = {name: {side: list(kept) for side, kept in sides.items()} for name, sides in earlier.items()}
    for name, sides in later.items():
        for side, kept in sides.items():
            before = both.setdefault(name, {}).get(side)
            both[name][side] = kept if before is None else [before[i] for i in kept]
    return both


def _width(module: nn.Module, side: str) -> int:
    if isinstance(module, _ConvNd):
        return module.out_channels if side == "out" else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features if side == "out" else module.in_features
    if isinstance(module, _NormBase):
        return module.num_features
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    raise AssertionError(f"{type(module).__name__} has no channels that can be cut")


def _cut(module: nn.Module, side: str, kept: list[int]) -> None:
    """Keep the channels ``kept`` of one side of ``module``, in place."""
    if isinstance(module, _ConvNd):
        _cut_convolution(module, side, kept)
    elif isinstance(module, nn.Linear):
        _keep(module, "weight", kept, 0 if side == "out" else 1)
        if side == "out":
            _keep(module, "bias", kept)
            module.out_features = len(kept)
        else:
            module.in_features = len(kept)
    elif isinstance(module, _NormBase):
        for name in ("weight", "bias", "running_mean", "running_var"):
            _keep(module, name, kept)
        module.num_features = len(kept)
    elif isinstance(module, nn.PReLU):
        _keep(module, "weight", kept)
        module.num_parameters = len(kept)


def _cut_convolution(module: _ConvNd, side: str, kept: list[int]) -> None:
    depthwise = is_depthwise(module)
    first = depthwise or (side == "out") != isinstance(module, _ConvTransposeNd)
    _keep(module, "weight", kept, 0 if first else 1)
    if side == "out":
        _keep(module, "bias", kept)
        module.out_channels = len(kept)
    if side == "in" or depthwise:
        module.in_channels = len(kept)
    if depthwise:
        module.groups = len(kept)


def _keep(module: nn.Module, name: str, kept: list[int], axis: int = 0) -> None:
    """Keep the entries ``kept`` along ``axis`` of a parameter or buffer that may be None."""
    value: Tensor | None = getattr(module, name)
    if value is None:
        return
    part = value.detach().index_select(axis, torch.tensor(kept, device=value.device))
    if isinstance(value, nn.Parameter):
        setattr(module, name, nn.Parameter(part, requires_grad=value.requires_grad))
    else:
        setattr(module, name, part)
