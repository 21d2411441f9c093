"""Magnitude: channels with small filters go first; no data needed.

A channel's score is the norm of all weights that make it, over every convolution and linear layer of its unit,
divided by the unit's mean at the start so that layers of different scale can be ranked together.

Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", ICLR 2017 (l1); He, Kang,
Dong, Fu and Yang, "Soft filter pruning for accelerating deep convolutional neural networks", IJCAI 2018 (l2).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.obstacles import is_depthwise
from hardy.pruning.units import Unit

__all__ = ["Magnitude"]


class Magnitude(Criterion):
    """Norm of the filters that make each channel.

    Args:
        network: what is pruned.
        units: its units.
        pixel_loss: the loss of one head; not used.
        norm: ``"l1"`` or ``"l2"``.
        normalise: divide by the mean that the unit had when the criterion was made.
    """

    needs_data = False

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        norm: Literal["l1", "l2"] = "l2",
        normalise: bool = True,
    ) -> None:
        super().__init__(network, units, pixel_loss)
        self._power = 1 if norm == "l1" else 2
        means = {unit.name: float(self._norms(unit).mean()) if normalise else 1.0 for unit in units}
        self._means = {name: mean or 1.0 for name, mean in means.items()}

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return {unit.name: self._norms(unit) / self._means[unit.name] for unit in self.units}

    def _norms(self, unit: Unit) -> Tensor:
        """(n,) float64 norms of the unit's filters."""
        total = torch.zeros(unit.size, dtype=torch.float64)
        for member in unit.members:
            module = self.network.get_submodule(member.module)
            if member.side == "out" and isinstance(module, (_ConvNd, nn.Linear)):
                powers = module.weight.detach().double().abs().pow(self._power).cpu()
                axis = 1 if isinstance(module, _ConvTransposeNd) and not is_depthwise(module) else 0
                filters = powers.transpose(0, axis).flatten(1).sum(1)
                total += torch.stack([filters[list(channels)].sum() for channels in member.channels])
        return total.pow(1 / self._power)
