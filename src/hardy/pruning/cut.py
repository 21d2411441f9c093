"""Cuts one side of a module to the channels kept: its parameters, and the attributes that hold its size.

Sides are ``"out"`` and ``"in"`` of convolutions and linear layers, ``"out"`` of norm layers, ``"name:axis"`` of a
parameter or buffer of any other module, and the sides that `hardy.pruning.tracing.declared` adds.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from hardy.ops.axes import parameter_axes, side_width, whole_groups
from hardy.pruning.tracing.declared import DECLARED, declared_width, follow
from hardy.pruning.weight_norm import weight_norm_of

__all__ = ["cut", "width"]


def width(module: nn.Module, side: str) -> int:
    """The number of channels of a side of ``module``; 0 for a side that does not exist."""
    if side in DECLARED:
        return declared_width(module, side)
    return side_width(module, side)


def cut(module: nn.Module, side: str, kept: list[int]) -> None:
    """Keep the channels ``kept`` of one side of ``module``, in place."""
    if ":" in side or isinstance(module, (_ConvNd, nn.Linear, _NormBase, nn.PReLU)):
        for name, axis in parameter_axes(module, side):
            _keep(module, name, kept, axis)
    if isinstance(module, _ConvNd):
        _narrow_convolution(module, side, kept)
    elif isinstance(module, nn.Linear):
        if side == "out":
            module.out_features = len(kept)
        elif side == "in":
            module.in_features = len(kept)
    elif isinstance(module, _NormBase):
        module.num_features = len(kept)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(kept)
    elif side == "out":
        _cut_norm(module, kept)
    follow(module, side, len(kept))


def _narrow_convolution(module: _ConvNd, side: str, kept: list[int]) -> None:
    """Set the sizes; a grouped convolution loses complete groups with their inputs, or the same indices per group."""
    if side == "in":
        module.in_channels = len(kept) * module.groups
    if side != "out":
        return
    if module.groups > 1 and whole_groups(kept, module.out_channels, module.groups):
        groups = module.groups * len(kept) // module.out_channels
        module.in_channels = module.in_channels * groups // module.groups
        module.groups = groups
    module.out_channels = len(kept)


def _cut_norm(module: nn.Module, kept: list[int]) -> None:
    for name, axis in parameter_axes(module, "out"):
        if name in dict(module.named_parameters(recurse=False)):
            _keep(module, name, kept, axis)
    if isinstance(module, nn.GroupNorm):
        if module.num_groups > 1:
            module.num_groups = module.num_groups * len(kept) // module.num_channels
        module.num_channels = len(kept)
    else:
        module.normalized_shape = (len(kept),)  # type: ignore[assignment]


def _keep(module: nn.Module, name: str, kept: list[int], axis: int = 0) -> None:
    """Keep the entries ``kept`` along ``axis`` of a parameter or buffer that may be None."""
    if name == "weight" and (normed := weight_norm_of(module)) is not None:
        normed.keep(kept, axis)
        return
    value: Tensor | None = getattr(module, name)
    if value is None:
        return
    part = value.detach().index_select(axis, torch.tensor(kept, device=value.device))
    if isinstance(value, nn.Parameter):
        setattr(module, name, nn.Parameter(part, requires_grad=value.requires_grad))
    else:
        setattr(module, name, part)
