"""Freezes the encoder, its norms in evaluation mode, and trains the decoder and the heads; inserts nothing.

Source: Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural networks?", NIPS 2014,
section 2: the copied layers are frozen and those after them are trained.
"""

from hardy.networks.base import Network
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["Frozen"]


class Frozen(Tuner):
    """The least that a tuner can do: what every other one is measured against."""

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        freeze_encoder(network)

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`: the network has its first form already."""
