"""Network slimming: channels whose norms scale them least go first; sparse training drives those scales to zero.

The score of a channel is |gamma| of the batch norm that its gate sits on, the mean over them where a unit has several;
the penalty is the sum of all of these |gamma|. Without sparse training it is the criterion "BN scale". A unit with no
such norm cannot be compared: its score is far above all others, so it goes last.

Source: Liu, Li, Shen, Huang, Yan and Zhang, "Learning efficient convolutional networks through network slimming",
ICCV 2017, eq. 1; as a plain criterion method 30 of the code of Molchanov et al., CVPR 2019.
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
"""The score of what has no scale; finite, so that means of it are too."""


class Slimming(Criterion):
    """``|gamma|`` of the norms where the gates sit.

    Args:
        network: what is pruned.
        units: its units.
        pixel_loss: the loss of one head; not used.

    Raises:
        InputError: when no unit has its gates on a norm with a scale.
    """

    needs_data = False
    sparse = True

    def __init__(self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss) -> None:
        super().__init__(network, units, pixel_loss)
        self._scales = [_scales(network, unit) for unit in units]
        if units and not any(self._scales):
            raise InputError(
                f"slimming needs norms with a scale behind the layers that are pruned, and {type(network).__name__} "
                "has none; use l2 or taylor"
            )

    def penalty(self) -> Tensor:
        """The sum of ``|gamma|`` over the channels that can be pruned, each norm's by itself."""
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
    """The gammas of the unit's gate norms, each with the (n, k) places of the unit's channels in it."""
    found = []
    for member in unit.gated:
        module = network.get_submodule(member.module)
        if member.side == "out" and isinstance(module, (_NormBase, *CHANNEL_NORMS)) and module.weight is not None:
            found.append((module.weight, torch.tensor(member.channels)))
    return found
