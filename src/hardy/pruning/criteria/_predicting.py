"""Shared by the criteria that read activations: run the network in evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.ops.norms import statistics_kept

__all__ = ["predicting"]


@contextmanager
def predicting(network: nn.Module, *, batch_statistics: bool = False) -> Iterator[None]:
    """Inside the block ``network`` is in evaluation mode without gradients; afterwards all modes are restored.

    With ``batch_statistics`` the batch norms keep their current mode. Their running statistics never change.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for module, mode in modes.items():
        if batch_statistics and isinstance(module, _BatchNorm):
            module.training = mode
    try:
        with torch.no_grad(), statistics_kept(network):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
