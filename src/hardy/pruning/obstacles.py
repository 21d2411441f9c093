"""What a convolution is to its channels."""

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["is_depthwise"]


def is_depthwise(module: nn.Module) -> bool:
    """True for a convolution with one filter for each of its channels (two at least)."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1
