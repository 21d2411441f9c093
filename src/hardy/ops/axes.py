"""The channel axes of each layer's parameters, and the number of its input and output channels.

    layer                                  weight                                 outputs   inputs
    convolution                            (C_out, C_in / groups, ...)            axis 0    axis 1
    transposed convolution                 (C_in, C_out, ...)                     axis 1    axis 0
    transposed convolution with groups     (C_in, C_out / groups, ...)            axis 0, of a depthwise one
    linear                                 (C_out, C_in)                          axis 0    axis 1
    norm, PReLU                            (C,)                                   axis 0
    torch's multi-head attention           (3 C_out, C_in), or three of them      axis 0    axis 1

The outputs of a transposed convolution whose groups have several channels are spread over both axes: the groups along
the first, the channels of a group along the second. `hardy.pruning` does not cut those.

A side is ``"out"`` or ``"in"``, or ``"name:axis"`` for a parameter or buffer of a module of another kind.

Source: the documentation of `torch.nn`.
"""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

__all__ = [
    "is_depthwise",
    "making",
    "output_blocks",
    "parameter_axes",
    "side_width",
    "splits_groups",
    "weight_axes",
    "weight_axis",
    "whole_groups",
]


def weight_axes(transposed: bool, groups: int) -> tuple[int, int]:
    """The axes of a convolution's weight: (output axis, input axis)."""
    return (1, 0) if transposed and groups == 1 else (0, 1)


def weight_axis(module: nn.Module, side: str) -> int:
    """The axis of the channels of ``side`` in the weight of a convolution or linear layer."""
    outputs, inputs = weight_axes(isinstance(module, _ConvTransposeNd), getattr(module, "groups", 1))
    return outputs if side == "out" else inputs


def parameter_axes(module: nn.Module, side: str) -> list[tuple[str, int]]:
    """The parameters and buffers that have the channels of ``side``, each with its channel axis.

    Empty for a side that ``module`` does not have. A parameter may be None, or missing if a norm has no shift.
    """
    name, _, axis = side.partition(":")
    if axis:
        return [(name, int(axis))]
    if isinstance(module, (_ConvNd, nn.Linear)):
        weight = ("weight", weight_axis(module, side))
        return {"out": [weight, ("bias", 0)], "in": [weight]}.get(side, [])
    if side != "out":
        return []
    if isinstance(module, nn.PReLU):
        return [("weight", 0)]
    kept = ("running_mean", "running_var") if isinstance(module, _NormBase) else ()
    return [(name, 0) for name in ("weight", "bias", *kept)]


def side_width(module: nn.Module, side: str) -> int:
    """The number of channels of a side; for the inputs of a grouped convolution, of one group.

    0 for a side that ``module`` does not have.
    """
    if ":" in side:
        name, axis = side.split(":")
        value = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]).get(name)
        return 0 if value is None or value.ndim <= int(axis) else value.shape[int(axis)]
    if isinstance(module, _ConvNd):
        return module.out_channels if side == "out" else module.in_channels // module.groups
    if isinstance(module, nn.Linear):
        return module.out_features if side == "out" else module.in_features
    return _norm_width(module) if side == "out" else 0


def _norm_width(module: nn.Module) -> int:
    for kind, attribute in ((_NormBase, "num_features"), (nn.PReLU, "num_parameters"), (nn.GroupNorm, "num_channels")):
        if isinstance(module, kind):
            return int(getattr(module, attribute))
    shape = vars(module).get("normalized_shape")
    return int(shape[0]) if shape else 0


def is_depthwise(module: nn.Module) -> bool:
    """True for a convolution with two or more channels and one filter for each of them."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1


def splits_groups(module: nn.Module) -> bool:
    """True for a grouped convolution, not transposed, whose groups have several input and several output channels."""
    if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd):
        return False
    return 1 < module.groups < min(module.in_channels, module.out_channels)


def output_blocks(module: _ConvNd) -> int:
    """The number of consecutive blocks along the weight's first axis that hold the outputs."""
    return module.groups if isinstance(module, _ConvTransposeNd) else 1


def whole_groups(kept: Sequence[int], channels: int, groups: int) -> bool:
    """Whether ``kept``, channels of a grouped layer, are complete groups (True) or the same positions in every group
    (False).

    Raises:
        ValueError: if they are neither.
    """
    each = channels // groups
    places = [frozenset(c % each for c in kept if c // each == group) for group in range(groups)]
    if set(places) <= {frozenset(), frozenset(range(each))}:
        return True
    if len(set(places)) > 1:
        raise ValueError(
            f"{len(kept)} of {channels} channels are neither complete groups (of {groups}) nor the same positions in "
            "each group"
        )
    return False


def making(module: nn.Module) -> tuple[str, ...]:
    """The sides of ``module`` that produce channels although it is not a layer: projections of torch's attention."""
    if not isinstance(module, nn.MultiheadAttention):
        return ()
    if module.in_proj_weight is not None:
        return ("in_proj_weight:0",)
    return "q_proj_weight:0", "k_proj_weight:0", "v_proj_weight:0"
