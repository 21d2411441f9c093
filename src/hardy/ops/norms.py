"""The classes of norm layers, and the running statistics of batch norms: protected during a forward pass, or
re-estimated from given batches.

Source: for `reestimate` the precise batch norm of Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576,
2021, section 3; after pruning: Li, Wu, Su and Wang, "EagleEye: fast sub-net evaluation for efficient neural network
pruning", ECCV 2020 (adaptive batch normalisation).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm import layers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from hardy.errors import InputError

__all__ = ["NORMS", "countable", "reestimate", "running_statistics", "statistics_kept"]

NORMS = (
    _NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    layers.RmsNorm,
    layers.RmsNorm2d,
    layers.SimpleNorm,
    layers.SimpleNorm2d,
)
"""Norm layers; their parameters are a scale and often a shift."""


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside the block forward passes do not change the running statistics of ``network``."""
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


@contextmanager
def running_statistics(network: nn.Module, wanted: str, instead: str) -> Iterator[None]:
    """Inside the block all batch norms of ``network`` use their running statistics; everything else keeps its mode.

    Raises:
        InputError: for a batch norm without them. The message names the option ``wanted`` that needs them and the
            option ``instead`` that does not.
    """
    norms = [(name, module) for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
    without = next((name for name, norm in norms if norm.running_mean is None), None)
    if without is not None:
        raise InputError(f"{wanted} needs running statistics, and {without!r} has none; use {instead}")
    modes = [norm.training for _, norm in norms]
    for _, norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for (_, norm), mode in zip(norms, modes, strict=True):
            norm.training = mode


def countable(network: nn.Module) -> bool:
    """Whether at least one batch norm of ``network`` keeps running statistics."""
    return any(isinstance(m, _BatchNorm) and m.running_mean is not None for m in network.modules())


@torch.no_grad()
def reestimate(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set the running statistics of every batch norm to those of all ``batches`` together, in place.

    Returns the number of batches. Mean and unbiased variance are computed over all values of a channel in all batches,
    in float64, without the old statistics. During the passes each batch norm normalises by the batch, as in training,
    and everything else is in evaluation mode: no dropout, no auxiliary head. Weights, modes and momenta do not change.
    Norms that no batch reached keep their statistics; without batches all norms do.

    Args:
        network: maps images (B, 3, H, W) to anything.
        batches: images on the network's device.

    Raises:
        ValueError: from torch, if a norm gets a single value per channel in a batch.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    modes = {module: module.training for module in network.modules()}
    totals = [_Moments() for _ in norms]
    handles = [norm.register_forward_pre_hook(total.note) for norm, total in zip(norms, totals, strict=True)]
    network.eval()
    for norm in norms:
        norm.train()
    count = 0
    try:
        with statistics_kept(network):
            for images in batches:
                network(images)
                count += 1
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    for norm, total in zip(norms, totals, strict=True):
        total.write(norm, count)
    return count


class _Moments:
    """Count, mean and sum of squared deviations of a norm's channels, updated batch by batch.

    Two parts with n and m values and means a and b are combined as in Chan, Golub and LeVeque (1979): (a - b)^2 is
    weighted by n m / (n + m), which avoids cancellation.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def note(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        """Add the input (B, C, ...) of a norm."""
        values = given[0].detach().double().transpose(0, 1).flatten(1)
        count, mean = values.shape[1], values.mean(1)
        apart, both = mean - self.mean, self.count + count
        squares = (values - mean[:, None]).square().sum(1)
        self.squares = self.squares + squares + apart.square() * (self.count * count / both)
        self.mean = self.mean + apart * (count / both)
        self.count = both

    def write(self, norm: _BatchNorm, batches: int) -> None:
        """Write these to the running statistics of ``norm``, in place; does nothing for fewer than two values."""
        if self.count < 2:
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(self.mean)  # type: ignore[arg-type]
        norm.running_var.copy_(self.squares / (self.count - 1))  # type: ignore[arg-type]
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(batches)
