"""A copy of a network with masked channels, which computes the same as the network after the cut."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import nn

from hardy.pruning.coupled import Unit
from hardy.pruning.mask import mask
from hardy.pruning.norms import unmask
from hardy.pruning.weight_norm import duplicate, make_plain

__all__ = ["masked_copy"]

Module = TypeVar("Module", bound=nn.Module)


def masked_copy(network: Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> Module:
    """A copy of ``network`` with the channels ``removed`` of ``units`` masked; ``network`` does not change.

    ``removed`` must include the channels that are masked in ``network`` already. Trained factors
    (`hardy.pruning.scales`) are multiplied into the weights, as before a cut.
    """
    trial = duplicate(network)
    for module in list(trial.modules()):
        unmask(module)
    make_plain(trial)
    mask(trial, units, removed)
    return trial
