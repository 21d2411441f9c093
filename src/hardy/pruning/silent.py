"""Keeps channels of a batch norm at zero in later training if they were masked and not cut out.

A channel is silent if the scale and shift of its batch norm and all weights of its filter are exactly 0.
`hardy.pruning.mask` leaves such channels where the channel of the residual stream is kept. A scale of 0 passes no
gradient on to the filter, but the scale and the shift themselves get gradients, so these are set to 0.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

__all__ = ["kept_silent", "silent"]


def silent(network: nn.Module) -> dict[str, Tensor]:
    """The name of each batch norm with silent channels -> a (C,) bool mask of these channels.

    The filter of a channel is that of the convolution before the batch norm; transposed convolutions are left out.
    """
    found: dict[str, Tensor] = {}
    before: _ConvNd | None = None
    for name, module in network.named_modules():
        if isinstance(module, _ConvNd):
            before = None if isinstance(module, _ConvTransposeNd) else module
        elif isinstance(module, _BatchNorm) and module.affine:
            if before is not None and before.out_channels == module.num_features:
                filters = before.weight.detach().flatten(1).any(1)
                quiet = ~(filters | (module.weight.detach() != 0) | (module.bias.detach() != 0))
                if quiet.any():
                    found[name] = quiet
            before = None
    return found


@contextmanager
def kept_silent(network: nn.Module) -> Iterator[None]:
    """Inside the block, channels of ``network`` that are silent at its start stay silent in training."""
    handles = []
    for name, quiet in silent(network).items():
        norm = network.get_submodule(name)
        for parameter in (norm.weight, norm.bias):
            assert isinstance(parameter, nn.Parameter), "it is affine"
            if parameter.requires_grad:
                handles.append(parameter.register_hook(_without(quiet)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without(quiet: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: torch.where(quiet.to(gradient.device), torch.zeros_like(gradient), gradient)
