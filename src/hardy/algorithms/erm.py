"""Empirical risk minimisation: the network's own losses, averaged over a domain-balanced batch.

Source: Vapnik, Statistical Learning Theory, 1998, eq. 1.2; the baseline of Gulrajani and Lopez-Paz, ICLR 2021
(DomainBed), section 3.
"""

from hardy.algorithms.base import Algorithm
from hardy.networks.base import Network, PixelLoss
from hardy.types import Batch, Terms

__all__ = ["ERM"]


class ERM(Algorithm):
    """Minimise the mean loss of the batch, without regard to domains.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
    """

    def __init__(self, network: Network, pixel_loss: PixelLoss) -> None:
        super().__init__(network)
        self.pixel_loss = pixel_loss

    def forward(self, batch: Batch) -> Terms:
        """The network's loss terms of ``batch``."""
        return self.network.losses(self.network.outputs(batch.images), batch.labels, self.pixel_loss)
