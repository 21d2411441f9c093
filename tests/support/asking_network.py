"""A network that reads the queries that a tuner's link gives, as a Mask2Former head does.

Source: written for the tests.
"""

from dataclasses import replace

from torch import Tensor

from hardy.data.label_spaces import LabelSpace
from hardy.networks.encoder_decoder import EncoderDecoder
from hardy.types import Outputs

__all__ = ["Asking"]


class Asking(EncoderDecoder):
    """Adds the means of the first K queries to the logits of the K classes.

    Args:
        label_space: the classes predicted.
        encoder: see `EncoderDecoder`.
        decoder: see `EncoderDecoder`.
    """

    def __init__(self, label_space: LabelSpace, *, encoder: str = "resnet18", decoder: str = "linear") -> None:
        super().__init__(label_space, encoder=encoder, decoder=decoder)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        plain, queries = super().outputs(images), self.queries
        if queries is None:
            return plain
        return replace(plain, logits=plain.logits + queries.mean(1)[: len(self.label_space), None, None])
