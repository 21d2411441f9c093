"""Half of a network's filters removed, for tests of networks."""

from collections.abc import Sequence

import torch
from torch import nn

from hardy.networks.base import Network
from hardy.pruning.remove import remove
from hardy.pruning.units import Unit, find_units

__all__ = ["halved"]


def halved(network: Network, units: Sequence[Unit] = ()) -> float:
    """Remove half of the channels of every unit of ``network`` in place, run what is left at two sizes, and return the
    share of its convolutions and linear layers that became smaller; ``units`` are found where none are given."""
    sizes = {name: layer.weight.shape for name, layer in network.eval().named_modules() if _mixes(layer)}
    units = units or find_units(network)
    remove(network, units, {unit.name: range(unit.size // 2) for unit in units})
    with torch.no_grad():
        for height, width in ((64, 96), (network.least_size + 5, network.least_size + 31)):
            logits = network(torch.rand(1, 3, height, width))
            assert logits.shape == (1, len(network.label_space), height, width)
            assert bool(logits.isfinite().all())
    return sum(network.get_submodule(name).weight.shape != shape for name, shape in sizes.items()) / len(sizes)


def _mixes(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
