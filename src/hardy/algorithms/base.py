"""The interface of what is trained: a batch goes in, named loss terms come out."""

from abc import ABC, abstractmethod

from torch import nn

from hardy.networks.base import Network
from hardy.types import Batch, Terms

__all__ = ["Algorithm"]


class Algorithm(nn.Module, ABC):
    """A way to train ``network``: `forward` returns the loss terms of a batch.

    The training loop (`hardy.engine.fit`) sums the terms, goes backward, steps and calls `after_step`. What else an
    algorithm learns are its own parameters; a part with an optimiser of its own steps inside `forward`.

    The constructor takes ``network`` and ``pixel_loss`` before the ``*``, and its options, each with a type and a
    default, after.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """The named scalar loss terms of ``batch``."""

    def after_backward(self) -> None:
        """Called when the gradients of a step are there and before they are clipped or used."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step number ``step`` (the first is 1)."""
