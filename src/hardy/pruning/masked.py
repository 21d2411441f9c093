"""A copy of a network in which some channels are masked: what the network will be once they are cut, to try it."""

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
    """A copy of ``network`` with the channels ``removed`` of ``units`` masked; ``network`` stays as it is.

    ``removed`` are all that are gone, those masked in ``network`` among them. Trained factors beside the weights
    (`hardy.pruning.scales`) are multiplied in, as they are before a cut.
    """
    trial = duplicate(network)
    for module in list(trial.modules()):
        unmask(module)
    make_plain(trial)
    mask(trial, units, removed)
    return trial
