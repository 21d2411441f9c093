"""Random: every channel gets a uniform random score; the baseline that any other criterion must beat.

Source: the usual baseline; method 1 of the code of Molchanov et al., CVPR 2019, which draws new scores from U(0, 5) for
every batch. Only the order matters, so here scores are drawn once, from U(0, 1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Criterion
from hardy.seed import key

__all__ = ["Random"]


class Random(Criterion):
    """Draws from U(0, 1) that depend only on the seed and the unit's name.

    Args:
        network: the network to prune; not used.
        units: its units.
        pixel_loss: the loss of one output head; not used.
        seed: the seed of the scores; None draws it from torch's CPU generator, which a run seeds.
    """

    needs_data = False

    def __init__(
        self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss, *, seed: int | None = None
    ) -> None:
        super().__init__(network, units, pixel_loss)
        self.seed = int(torch.randint(2**31, ())) if seed is None else seed

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return {unit.name: self._draw(unit) for unit in self.units}

    def _draw(self, unit: Unit) -> Tensor:
        generator = torch.Generator().manual_seed(key(self.seed, "random", unit.name))
        return torch.rand(unit.size, dtype=torch.float64, generator=generator)
