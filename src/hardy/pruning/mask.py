"""Masking: channels are set to zero and keep their place in the tensors.

A masked channel has no effect: the layers that produce it get zero weights, its norm layers get zero scale and shift,
and the layers that read it get zero weights for it. Norm layers over channels, and layers that standardise their
weights over their inputs, leave it out (`hardy.pruning.norms`). So in evaluation mode the masked network computes the
same as the pruned one, with unchanged shapes.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from hardy.ops.axes import parameter_axes
from hardy.pruning.coupled import Unit
from hardy.pruning.norms import CHANNEL_NORMS, mask_inputs, mask_norm
from hardy.pruning.weight_norm import weight_norm_of

__all__ = ["filling", "mask", "prepare_mask"]


def mask(network: nn.Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> None:
    """Zero the channels ``removed`` of ``units`` in ``network``, in place."""
    prepare_mask(network, units, removed)()


def prepare_mask(network: nn.Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> Callable[[], None]:
    """Prepare ``network``, in place, and return a function that zeroes the channels ``removed`` of ``units`` in it.

    Call the function immediately and after each training step. Before the first call only these are changed: norm
    layers over channels, layers that standardise their weights, and torch's transformer layers, which lose their fast
    path.
    """
    fills: list[Callable[[], object]] = []
    for (name, side, standardised), channels in _gone(units, removed).items():
        module = network.get_submodule(name)
        if standardised and side == "in":
            mask_inputs(module, channels)
            continue
        if isinstance(module, CHANNEL_NORMS) and side == "out":
            mask_norm(module, channels)
        device = next((value.device for value in module.parameters()), None)
        gone = torch.tensor(channels, device=device)
        fills += [filling(module, kind, axis, gone) for kind, axis in _masked_parameters(module, side)]
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # so that in evaluation mode it calls its norm layers

    def zero() -> None:
        with torch.no_grad():
            for fill in fills:
                fill()

    return zero


def _gone(units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> dict[tuple[str, str, bool], list[int]]:
    """The channels to mask, by module, side, and whether the module standardises its weights."""
    found: dict[tuple[str, str, bool], list[int]] = defaultdict(list)
    for unit in units:
        for member in unit.members:
            channels = [i for channel in removed.get(unit.name, ()) for i in member.channels[channel]]
            if channels:
                found[member.module, member.side, member.standardised].extend(channels)
    return found


def filling(module: nn.Module, name: str, axis: int, gone: Tensor) -> Callable[[], object]:
    """A function that zeroes the channels ``gone`` along ``axis`` of a parameter or buffer of ``module``, in place."""
    normed = weight_norm_of(module) if name == "weight" else None
    if normed is not None:
        return partial(normed.zero, gone, axis)
    return partial(_stored(module, name).index_fill_, axis, gone, 0.0)


def _masked_parameters(module: nn.Module, side: str) -> list[tuple[str, int]]:
    """The parameters of ``module`` to zero for channels of ``side``, each with the axis of the channels."""
    if ":" in side:
        return parameter_axes(module, side)
    if isinstance(module, (_ConvNd, nn.Linear)):
        return [place for place in parameter_axes(module, side) if place[0] == "weight" or module.bias is not None]
    if isinstance(module, (_NormBase, *CHANNEL_NORMS)):
        own = ("weight", "bias")  # without them the running statistics have no effect
        return [p for p in parameter_axes(module, side) if p[0] in own and getattr(module, p[0], None) is not None]
    return []


def _stored(module: nn.Module, name: str) -> Tensor:
    """The stored parameter, without the factor of sparse training (`hardy.pruning.scales`)."""
    if parametrize.is_parametrized(module, name):
        return module.parametrizations[name].original  # type: ignore[index,union-attr,no-any-return]
    return getattr(module, name)  # type: ignore[no-any-return]
