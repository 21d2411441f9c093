"""Masking: channels are set to zero and stay in place.

A masked channel computes nothing: the layers that make it have zero weights, its norms zero scale and shift, and the
layers that take it zero weights for it; norms over channels leave it out (`hardy.pruning.norms`). So in evaluation mode
the masked network is the pruned one, in its old shape.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from hardy.pruning.norms import CHANNEL_NORMS, mask_norm

if TYPE_CHECKING:
    from hardy.pruning.units import Unit

__all__ = ["mask", "masker"]


def mask(network: nn.Module, units: Sequence["Unit"], removed: Mapping[str, Sequence[int]]) -> None:
    """Zero the channels ``removed`` of ``units`` in ``network``, in place."""
    masker(network, units, removed)()


def masker(network: nn.Module, units: Sequence["Unit"], removed: Mapping[str, Sequence[int]]) -> Callable[[], None]:
    """A function that zeroes the channels ``removed`` of ``units`` in place, made once and called after each step."""
    gone: dict[tuple[str, str], list[int]] = {}
    for unit in units:
        for member in unit.members:
            found = [i for channel in removed.get(unit.name, ()) for i in member.channels[channel]]
            if found:
                gone.setdefault((member.module, member.side), []).extend(found)
    places: list[tuple[Tensor, int, Tensor]] = []
    for (name, side), channels in gone.items():
        module = network.get_submodule(name)
        if isinstance(module, CHANNEL_NORMS):
            mask_norm(module, channels)
        for value, axis in _tensors(module, side):
            places.append((value, axis, torch.tensor(channels, device=value.device)))

    def zero() -> None:
        with torch.no_grad():
            for value, axis, gone in places:
                value.index_fill_(axis, gone, 0.0)

    return zero


def _tensors(module: nn.Module, side: str) -> list[tuple[Tensor, int]]:
    """The parameters of ``module`` that make (or take) its channels, each with the axis they lie along."""
    if isinstance(module, (_ConvNd, nn.Linear)):
        transposed = isinstance(module, _ConvTransposeNd) and module.groups == 1
        if side == "in":
            return [(_stored(module, "weight"), 0 if transposed else 1)]
        found = [(_stored(module, "weight"), 1 if transposed else 0)]
        return found if module.bias is None else [*found, (_stored(module, "bias"), 0)]
    if isinstance(module, (_NormBase, *CHANNEL_NORMS)):
        return [(_stored(module, name), 0) for name in ("weight", "bias") if getattr(module, name, None) is not None]
    name, _, axis = side.partition(":")
    return [(_stored(module, name), int(axis))] if axis else []


def _stored(module: nn.Module, name: str) -> Tensor:
    """The parameter itself, also where sparse training multiplies it (`hardy.pruning.scales`)."""
    if parametrize.is_parametrized(module, name):
        return module.parametrizations[name].original  # type: ignore[index,union-attr,no-any-return]
    return getattr(module, name)  # type: ignore[no-any-return]
