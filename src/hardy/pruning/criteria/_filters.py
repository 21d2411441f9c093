"""Shared by the weight criteria: the filters that produce each channel of a unit, in all its layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from hardy.networks.base import Network
from hardy.ops.axes import making, weight_axis
from hardy.pruning.coupled import Unit
from hardy.pruning.gates import by_unit

__all__ = ["Bank", "FilterNorms", "banks_of", "filter_sums", "rows"]


@dataclass(frozen=True)
class Bank:
    """The filters of one layer that produce the channels of a unit.

    Attributes:
        module: a convolution or linear layer.
        axis: the axis of its weight that counts the filters.
        channels: (n, k), the indices of the k filters that produce each of the unit's n channels.
        name: of the parameter that holds them.
    """

    module: nn.Module
    axis: int
    channels: Tensor
    name: str = "weight"

    @property
    def weight(self) -> Tensor:
        """The current weight of the layer."""
        return getattr(self.module, self.name)  # type: ignore[no-any-return]


def banks_of(network: Network, unit: Unit) -> list[Bank]:
    """The filter banks of ``unit``, in the order of its members."""
    found = []
    for member in unit.members:
        module = network.get_submodule(member.module)
        if member.side == "out" and isinstance(module, (_ConvNd, nn.Linear)):
            found.append(Bank(module, weight_axis(module, "out"), torch.tensor(member.channels)))
        elif member.side in making(module):
            found.append(Bank(module, 0, torch.tensor(member.channels), member.side.partition(":")[0]))
    return found


def rows(bank: Bank, values: Tensor) -> Tensor:
    """``values``, with the shape of the weight, as (n, F) float64: one row per channel, with all its filters."""
    filters = values.detach().double().transpose(0, bank.axis).flatten(1)
    return filters[bank.channels.to(values.device)].flatten(1)


def filter_sums(banks: Sequence[Sequence[Bank]], values: Callable[[Tensor], Tensor]) -> Tensor:
    """For each gate the sum of ``values(weight)`` over its filters: (G,) float64.

    Args:
        banks: for each unit its banks.
        values: maps a weight to a tensor of the same shape.
    """
    return torch.cat([torch.stack([rows(bank, values(bank.weight)).sum(1) for bank in some]).sum(0) for some in banks])


class FilterNorms:
    """The l1 or l2 norm of all weights that produce each channel.

    Args:
        network: the network to prune.
        units: its units.
        power: 1 or 2.
        normalise: divide by the mean of the unit at construction, so that layers of different scale can be ranked
            together.
    """

    def __init__(self, network: Network, units: Sequence[Unit], power: int, normalise: bool) -> None:
        self._units = units
        self._power = power
        self._banks = [banks_of(network, unit) for unit in units]
        self._means = {
            name: float(filter_norms.mean()) if normalise else 1.0
            for name, filter_norms in self._filter_norms().items()
        }

    def scores(self) -> dict[str, Tensor]:
        """For each unit's name its (n,) filter norms; a unit with only zero weights gets zeros."""
        return {name: filter_norms / (self._means[name] or 1.0) for name, filter_norms in self._filter_norms().items()}

    def _filter_norms(self) -> dict[str, Tensor]:
        sums = filter_sums(self._banks, lambda weight: weight.detach().double().abs() ** self._power)
        return by_unit(sums ** (1 / self._power), self._units)
