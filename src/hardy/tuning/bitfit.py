"""Trains the biases of the encoder, and the decoder and heads; inserts nothing.

    y = W x + b          b of every linear layer, convolution and norm layer of the encoder is trained, W is not

A norm layer's bias is its shift. Biases of query, key and value that attention stores outside of the layer (``q_bias``,
``v_bias``, ``in_proj_bias``) are trained too. Tables of position biases are weights, not biases.

Source: Ben Zaken, Ravfogel and Goldberg, "BitFit: simple parameter-efficient fine-tuning for transformer-based masked
language-models", ACL 2022.
"""

from hardy.networks.base import Network
from hardy.tuning._layers import is_bias, train_only
from hardy.tuning.base import Tuner

__all__ = ["BitFit"]


class BitFit(Tuner):
    """For encoders with biases; in most convolutional encoders only the norm layers have them."""

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        train_only(network, is_bias, "bias")

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`: nothing was inserted, so there is nothing to merge."""
