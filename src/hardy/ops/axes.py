"""Which axis of which parameter runs over a layer's channels, and how many channels each side of it has.

    layer                                  weight                                 outputs   inputs
    convolution                            (C_out, C_in / groups, ...)            axis 0    axis 1
    transposed convolution                 (C_in, C_out, ...)                     axis 1    axis 0
    transposed convolution with groups     (C_in, C_out / groups, ...)            axis 0, of a depthwise one
    linear                                 (C_out, C_in)                          axis 0    axis 1
    norm, PReLU                            (C,)                                   axis 0
    torch's multi-head attention           (3 C_out, C_in), or three of them      axis 0    axis 1

The outputs of a transposed convolution whose groups have several channels lie along both axes: group after group along
the first, the channels of a group along the second. `hardy.pruning` does not cut those.

Sides are ``"out"`` and ``"in"``, and ``"name:axis"`` of a parameter or buffer that a module of another kind holds.

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
    """The axes of a convolution's weight: of its outputs and of its inputs."""
    return (1, 0) if transposed and groups == 1 else (0, 1)


def weight_axis(module: nn.Module, side: str) -> int:
    """The axis of the weight of a convolution or linear layer along which the channels of ``side`` lie."""
    outputs, inputs = weight_axes(isinstance(module, _ConvTransposeNd), getattr(module, "groups", 1))
    return outputs if side == "out" else inputs


def parameter_axes(module: nn.Module, side: str) -> list[tuple[str, int]]:
    """The parameters and buffers in which the channels of ``side`` lie, each with the axis; none for other sides.

    Some of them may be None, or missing where a norm has no shift.
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
    """How many channels a side has; of a grouped convolution's inputs those of one group; 0 for one that it has not."""
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
    """True for a convolution with one filter for each of its channels (two at least)."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1


def splits_groups(module: nn.Module) -> bool:
    """True for a grouped convolution, not transposed, each group of which has several channels on both sides."""
    if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd):
        return False
    return 1 < module.groups < min(module.in_channels, module.out_channels)


def output_blocks(module: _ConvNd) -> int:
    """In how many blocks along the weight's first axis its outputs lie, one after the other."""
    return module.groups if isinstance(module, _ConvTransposeNd) else 1


def whole_groups(kept: Sequence[int], channels: int, groups: int) -> bool:
    """True when ``kept`` of a grouped layer's ``channels`` are complete groups, False when every group keeps the same
    places.

    Raises:
        ValueError: when they are neither.
    """
    each = channels // groups
    places = [frozenset(c % each for c in kept if c // each == group) for group in range(groups)]
    if set(places) <= {frozenset(), frozenset(range(each))}:
        return True
    if len(set(places)) > 1:
        raise ValueError(
            f"{len(kept)} of {channels} channels are neither some of {groups} groups nor the same places of each"
        )
    return False


def making(module: nn.Module) -> tuple[str, ...]:
    """The sides of ``module`` that make channels though it is no layer: the projections of torch's own attention."""
    if not isinstance(module, nn.MultiheadAttention):
        return ()
    if module.in_proj_weight is not None:
        return ("in_proj_weight:0",)
    return "q_proj_weight:0", "k_proj_weight:0", "v_proj_weight:0"
