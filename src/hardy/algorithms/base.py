"""The interface of what is trained: a batch goes in, named loss terms come out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.types import Batch, Terms

__all__ = ["Algorithm"]


class Algorithm(nn.Module, ABC):
    """A way to train ``network``: `forward` returns the loss terms of a batch.

    The training loop (`hardy.engine.fit`) sums the terms, goes backward, steps and calls `after_step`. What else an
    algorithm learns are its own parameters, what it must remember from step to step its buffers: a checkpoint holds
    both. A part with an optimiser of its own, such as a critic, steps inside `forward`; see `optimisers`.

    The constructor takes ``network`` and ``pixel_loss`` before the ``*``, and its options, each with a type and a
    default, after. One that learns from another network asks there for a ``teacher`` too, a
    `hardy.networks.building.teacher.Teacher`.
    """

    needs_domains: int = 1
    """The least number of domains that a batch must hold for the terms to mean anything."""
    trains_network: bool = True
    """False when it learns something beside the network, which stays as it is."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """The named scalar loss terms of ``batch``."""

    def optimisers(self) -> Mapping[str, Optimizer]:
        """The optimisers that `forward` steps, by names of the algorithm's own; none by default.

        The training loop neither steps, clips nor decays what they hold, which are parameters of the algorithm, and its
        checkpoint keeps their state. They are made in the constructor. The loop's backward pass leaves gradients in
        what they hold: set these to zero before each of their own.
        """
        return {}

    def check(self, domains: int, batch: int) -> None:
        """Refuse, before the first step, data that cannot be worked on.

        Args:
            domains: how many domains are trained on.
            batch: the fewest images that `forward` gets at a time.

        Raises:
            InputError: naming the key, what it holds and what is needed.
        """
        name, least = type(self).__name__, self.needs_domains
        if domains < least:
            raise InputError(
                f"algorithm: {name} compares domains and data.sources names {domains}; name {least} or more, or use erm"
            )
        if batch < least:
            raise InputError(
                f"optim.batch: {batch} image at a time cannot hold the {least} domains that {name} compares; use "
                f"{least} or more per process and part"
            )

    def restarts(self, step: int) -> bool:
        """Whether the optimiser forgets its moments before its step number ``step`` (the first is 1).

        For an objective that jumps at a known step. The answer depends on ``step`` alone, so that a resumed run
        forgets where one that never stopped did.
        """
        return False

    def after_backward(self) -> None:
        """Called when the gradients of a step are there and before they are clipped or used."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step number ``step`` (the first is 1)."""

    def keep(self, folder: Path) -> None:
        """Write to the run's ``folder`` what was learned besides the network; called once, after the last step."""
