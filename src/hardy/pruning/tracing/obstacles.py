"""What a convolution is to its channels."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["is_depthwise", "whole_groups"]


def is_depthwise(module: nn.Module) -> bool:
    """True for a convolution with one filter for each of its channels (two at least)."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1


def whole_groups(kept: Sequence[int], channels: int, groups: int) -> bool:
    """True when ``kept`` of a grouped layer's ``channels`` are whole groups, False when every group keeps the same
    places.

    Raises:
        ValueError: when they are neither.
    """
    each = channels // groups
    places = [frozenset(c % each for c in kept if c // each == group) for group in range(groups)]
    if set(places) <= {frozenset(), frozenset(range(each))}:
        return True
    if len(set(places)) > 1:
        raise ValueError(f"{len(kept)} of {channels} channels in {groups} groups are no whole groups, nor alike in all")
    return False
