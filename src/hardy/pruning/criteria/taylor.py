"""First-order Taylor: how much the mean risk would change if a channel were removed.

For each gate z = 1 (`hardy.pruning.gates`) the score is the mean over batches of (dR/dz)^2, where R is the mean of the
domain risks: what the loss would lose to first order, squared.

Source: Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning", CVPR 2019;
eq. 2 of Cai, Li and Kot, arXiv:2210.13810.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.criteria._observed import Observed, Squares
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.risk import domain_risks
from hardy.pruning.units import Unit
from hardy.types import Batch, Terms

__all__ = ["Taylor"]


class Taylor(Criterion):
    """Squared first-order effect of each gate on the mean risk.

    Args:
        network: what is pruned.
        units: its units.
        pixel_loss: the loss of one head.
        square: square each batch's gradient and then average (``"before"``), or average and then square.
    """

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        square: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__(network, units, pixel_loss)
        self._observed = Observed(network, units)
        self._squares = Squares(square)

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``."""
        risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        return {"risk": self._observed.expect(risks.mean())}

    def collect(self) -> None:
        """See `Criterion.collect`."""
        self._squares.add(self._observed.gradients(self._observed.scale()))

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._observed.forget()
        self._squares.reset()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`."""
        return self._squares.scores(self.units, (1.0,))
