"""A copy of a network in which some channels are masked: what the network will be once they are cut, to try it."""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from hardy.pruning.mask import mask
from hardy.pruning.norms import unmask
from hardy.pruning.units import Unit

__all__ = ["masked_copy"]

Module = TypeVar("Module", bound=nn.Module)


def masked_copy(network: Module, units: Sequence[Unit], removed: Mapping[str, Sequence[int]]) -> Module:
    """A copy of ``network`` with the channels ``removed`` of ``units`` masked; ``network`` stays as it is.

    ``removed`` are all that are gone, those masked in ``network`` among them. Trained factors beside the weights
    (`hardy.pruning.scales`) are multiplied in, as they are before a cut.
    """
    trial = copy.deepcopy(network)
    for module in list(trial.modules()):
        unmask(module)
        if parametrize.is_parametrized(module):
            _fold(module)
    mask(trial, units, removed)
    return trial


def _fold(module: nn.Module) -> None:
    """Make a copied module's parametrized tensors plain parameters, in place.

    Torch's own function would take the property from the class, which the copy shares with the original.
    """
    kind = parametrize.type_before_parametrizations(module)
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
    del module.parametrizations
    module.__class__ = kind
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))
