"""Masking: channels are set to zero and stay in place.

A masked channel computes nothing: the layers that make it have zero weights, its norms zero scale and shift, and the
layers that take it zero weights for it. So in evaluation mode the masked network is the pruned one, in its old shape.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from hardy.pruning.obstacles import is_depthwise
from hardy.pruning.units import Unit

__all__ = ["mask", "masker"]


def mask(network: nn.Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> None:
    """Zero the channels ``removed`` of ``units`` in ``network``, in place."""
    masker(network, units, removed)()


def masker(network: nn.Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> Callable[[], None]:
    """A function that zeroes the channels ``removed`` of ``units`` in place, made once and called after each step."""
    places: list[tuple[Tensor, int, Tensor]] = []
    for unit in units:
        for member in unit.members:
            gone = [i for channel in removed.get(unit.name, ()) for i in member.channels[channel]]
            if not gone:
                continue
            for value, axis in _tensors(network.get_submodule(member.module), member.side):
                places.append((value, axis, torch.tensor(gone, device=value.device)))

    def zero() -> None:
        with torch.no_grad():
            for value, axis, gone in places:
                value.index_fill_(axis, gone, 0.0)

    return zero


def _tensors(module: nn.Module, side: str) -> list[tuple[Tensor, int]]:
    """The parameters of ``module`` that make (or take) its channels, each with the axis they lie along."""
    if isinstance(module, (_ConvNd, nn.Linear)):
        transposed = isinstance(module, _ConvTransposeNd) and not is_depthwise(module)
        if side == "in":
            return [(_stored(module, "weight"), 0 if transposed else 1)]
        found = [(_stored(module, "weight"), 1 if transposed else 0)]
        return found if module.bias is None else [*found, (_stored(module, "bias"), 0)]
    if isinstance(module, _NormBase) and module.affine:
        return [(_stored(module, "weight"), 0), (_stored(module, "bias"), 0)]
    return []


def _stored(module: nn.Module, name: str) -> Tensor:
    """The parameter itself, also where sparse training multiplies it (`hardy.pruning.scales`)."""
    if parametrize.is_parametrized(module, name):
        return module.parametrizations[name].original  # type: ignore[index,union-attr,return-value]
    return getattr(module, name)  # type: ignore[no-any-return]
