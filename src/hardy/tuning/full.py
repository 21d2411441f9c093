"""Trains all weights, including the encoder, as training without a tuner does; inserts nothing. A baseline.

It has no option for the learning rate: with every tuner and without one, ``optim.encoder_rate`` is the learning-rate
factor of a pre-trained encoder.

Source: Girshick, Donahue, Darrell and Malik, "Rich feature hierarchies for accurate object detection and semantic
segmentation", CVPR 2014, section 2.3: all weights of a pre-trained network are fine-tuned at a lower learning rate.
"""

from hardy.networks.base import Network
from hardy.tuning.base import Tuner

__all__ = ["Full"]


class Full(Tuner):
    """For every network, also one without an encoder."""

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`: nothing is frozen."""
        network.requires_grad_(True)

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`: nothing was inserted, so there is nothing to merge."""
