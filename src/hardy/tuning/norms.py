"""Trains the scales and shifts of the encoder's norm layers, and the decoder and heads; inserts nothing.

    y = gamma * (x - mean) / std + beta          gamma and beta of every norm layer of the encoder are trained

The running statistics of batch norms are frozen too.

Source: Frankle, Schwab and Morcos, "Training BatchNorm and only BatchNorm: on the expressive power of random features
in CNNs", ICLR 2021, for batch norms; Basu, Hu, Massiceti and Feizi, "Strong baselines for
parameter-efficient few-shot fine-tuning", AAAI 2024, for the layer norms of transformers.
"""

from hardy.networks.base import Network
from hardy.ops.norms import NORMS
from hardy.tuning._layers import train_only
from hardy.tuning.base import Tuner

__all__ = ["Norms"]


class Norms(Tuner):
    """For encoders whose norm layers have scales or shifts."""

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        train_only(network, lambda module, _: isinstance(module, NORMS), "norm layer with a scale or shift")

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`: nothing was inserted, so there is nothing to merge."""
