"""Freezes the encoder, with its norm layers in evaluation mode, and trains the decoder and heads; inserts nothing.

Source: Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural networks?", NIPS 2014,
section 2: the transferred layers are frozen and the layers after them are trained.
"""

from hardy.networks.base import Network
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["Frozen"]


class Frozen(Tuner):
    """The simplest tuner, a baseline for the others."""

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        freeze_encoder(network)

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`: nothing was inserted, so there is nothing to merge."""
