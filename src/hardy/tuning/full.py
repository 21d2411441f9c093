"""Trains all weights, encoder included, as training without a tuner does; inserts nothing. The baseline of the others.

It has no learning rate of its own: ``optim.encoder_rate`` is the one factor on the rate of a pre-trained encoder, with
every tuner and without one.

Source: Girshick, Donahue, Darrell and Malik, "Rich feature hierarchies for accurate object detection and semantic
segmentation", CVPR 2014, section 2.3: a pre-trained network is trained on, all of it, at a lower rate.
"""

from hardy.networks.base import Network
from hardy.tuning.base import Tuner

__all__ = ["Full"]


class Full(Tuner):
    """For every network, one without an encoder too."""

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`: nothing is frozen."""
        network.requires_grad_(True)

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`: nothing was inserted, so there is nothing to merge."""
