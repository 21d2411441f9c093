"""What a network costs by count: parameters, and multiply-accumulates (GMACs, not FLOPs).

Counted are convolutions, transposed convolutions and matrix products, attention among them; normalisation, activation,
pooling, resizing and element-wise work are not: the convention of the field's tables.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["gmacs", "operations", "parameters"]


def parameters(network: nn.Module) -> int:
    """The number of parameters, trained or frozen; running statistics are none."""
    return sum(parameter.numel() for parameter in network.parameters())


def gmacs(network: nn.Module, size: Sequence[int], *, training: bool = False) -> float:
    """Billions of multiply-accumulates for one image of ``size`` (height, width).

    Counted by running a copy without data on the ``meta`` device: ``network`` is not changed, no memory of that size is
    used, and a pruned network is counted as it is.

    Args:
        network: maps images (B, 3, H, W) to anything.
        size: (height, width).
        training: count the heads that run only in training mode too.
    """
    batch = 2 if training else 1  # one image is too few for a batch norm after a global pool
    return operations(network, torch.empty(batch, 3, *size), training=training)


def operations(network: nn.Module, example: Tensor, *, training: bool = False) -> float:
    """Billions of multiply-accumulates for one sample of ``example``'s shape, counted as by `gmacs`."""
    clone = copy.deepcopy(network).to("meta").train(training)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        clone(example.to("meta"))
    return float(counter.get_total_flops()) / 2 / len(example) / 1e9
