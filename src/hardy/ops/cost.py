"""The counted cost of a network: parameters, and multiply-accumulates (GMACs, not FLOPs).

As usual in the literature, convolutions, transposed convolutions and matrix products (including attention) are counted;
normalisation, activation, pooling, resizing and element-wise operations are not.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["gmacs", "operations", "parameters"]


def parameters(network: nn.Module) -> int:
    """The number of parameters, trained or frozen; running statistics are not parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def gmacs(network: nn.Module, size: Sequence[int], *, training: bool = False) -> float:
    """Billions of multiply-accumulates for one image of ``size`` (height, width).

    A copy without data runs on the ``meta`` device. So ``network`` is not changed, no memory for activations is used,
    and a pruned network is counted with its actual widths.

    Args:
        network: maps images (B, 3, H, W) to anything.
        size: (height, width).
        training: also count the heads that run only in training mode.
    """
    batch = 2 if training else 1  # one image is too few for a batch norm after a global pool
    return operations(network, torch.empty(batch, 3, *size), training=training)


def operations(network: nn.Module, example: Tensor, *, training: bool = False) -> float:
    """Billions of multiply-accumulates for one sample of the batch ``example``, counted as in `gmacs`."""
    clone = copy.deepcopy(network).to("meta").train(training)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        clone(example.to("meta"))
    return float(counter.get_total_flops()) / 2 / len(example) / 1e9
