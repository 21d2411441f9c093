"""Network slimming: removes the channels with the smallest |gamma|, which sparse training drives to zero.

The score of a channel is |gamma| of the norm layer at its gate site, or the mean over several sites. The penalty is the
sum of all these |gamma|. Without sparse training this is the criterion "BN scale". A unit without such a norm layer
cannot be compared: it gets a very high score, so it is removed last.

Source: Liu, Li, Shen, Huang, Yan and Zhang, "Learning efficient convolutional networks through network slimming",
ICCV 2017, eq. 1; without sparse training: method 30 of the code of Molchanov et al., CVPR 2019.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.norms import CHANNEL_NORMS

__all__ = ["Slimming"]

_LAST = 1e12
"""The score of units without a scale; finite, so that its means are finite too."""


class Slimming(Criterion):
    """``|gamma|`` of the norm layers at the gate sites.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head; not used.

    Raises:
        InputError: if no unit has its gates at a norm layer with a scale.
    """

    needs_data = False
    sparse = True

    def __init__(self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss) -> None:
        super().__init__(network, units, pixel_loss)
        self._scales = [_scales(network, unit) for unit in units]
        if units and not any(self._scales):
            raise InputError(
                f"slimming needs norm layers with a scale after the layers that are pruned, and "
                f"{type(network).__name__} has none; use l2 or taylor"
            )

    def penalty(self) -> Tensor:
        """The sum of ``|gamma|`` over all norm layers and all channels that can be pruned."""
        scales = [scale[channels.to(scale.device)] for some in self._scales for scale, channels in some]
        return torch.stack([gamma.abs().sum() for gamma in scales]).sum()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return {unit.name: self._score(unit, some) for unit, some in zip(self.units, self._scales, strict=True)}

    def _score(self, unit: Unit, scales: Sequence[tuple[nn.Parameter, Tensor]]) -> Tensor:
        if not scales:
            return torch.full((unit.size,), _LAST, dtype=torch.float64)
        sizes = [scale.detach().abs().double().cpu()[channels].mean(1) for scale, channels in scales]
        return torch.stack(sizes).mean(0)


def _scales(network: Network, unit: Unit) -> list[tuple[nn.Parameter, Tensor]]:
    """The gammas at the gate sites of ``unit``, each with the (n, k) indices of the unit's channels in it."""
    found = []
    for member in unit.gated:
        module = network.get_submodule(member.module)
        if member.side == "out" and isinstance(module, (_NormBase, *CHANNEL_NORMS)) and module.weight is not None:
            found.append((module.weight, torch.tensor(member.channels)))
    return found
