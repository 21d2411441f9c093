"""Batch norms whose running statistics stay as they are while a batch passes through them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["statistics_kept"]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Forward passes inside use the batch's statistics where they would, and leave the running ones, in place."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts: list[Tensor | None] = [norm.num_batches_tracked for norm in norms]
    before = [None if count is None else count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, momentum, count, kept in zip(norms, momenta, counts, before, strict=True):
                norm.momentum = momentum
                if count is not None and kept is not None:
                    count.copy_(kept)
