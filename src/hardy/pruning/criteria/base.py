"""The interface of a criterion: which filters matter."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.types import Batch, Terms

__all__ = ["Criterion"]


class Criterion(ABC):
    """Scores every channel of every unit of a network; the lowest scores are pruned first.

    Life of a criterion: the gradients are cleared, `observe` returns the loss terms of a batch, their sum goes
    backward, `collect` is called; after some such steps `scores` gives the mean over what was collected since the
    last `reset`. A step may scale the loss, or split its batch into several calls of `observe` and one of `collect`.
    One that reads only the weights sets ``needs_data = False``: its `observe` is never called.

    The constructor takes ``network``, ``units`` and ``pixel_loss`` before the ``*`` and its options after. What is
    ranked are its own ``units``: those given, unless an option places gates otherwise.
    """

    needs_data: bool = True
    needs_domains: int = 1
    """The least number of domains a batch must hold for the score to mean anything."""
    sparse: bool = False
    """True when it has a `penalty`, and its scores are the sizes that the penalty shrinks."""
    strength: float = 0.0
    """What the penalty is multiplied with at present; set by the schedule, read by who needs the whole objective."""

    def __init__(self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss) -> None:
        self.network = network
        self.units = units
        self.pixel_loss = pixel_loss

    def observe(self, batch: Batch) -> Terms:
        """The loss terms of ``batch``; ``sum(terms.values()).backward()`` completes the observation."""
        raise AssertionError(f"{type(self).__name__} reads weights only and observes nothing")

    def collect(self) -> None:  # noqa: B027 - only criteria that read gradients need it
        """Read what the backward passes of a step left; called before gradients are clipped or cleared."""

    def reset(self) -> None:  # noqa: B027 - only criteria with memory need it
        """Forget what was collected."""

    def penalty(self) -> Tensor | None:
        """The sparsity term of sparse training, a scalar that reaches the gates' parameters; None when there is none.

        Each gate is weighted in it; its strength is the schedule's. It belongs to the batch observed last.
        """
        return None

    def release(self) -> None:  # noqa: B027 - only criteria that train something of their own need it
        """Fold into the network, in place, what was added to it; called once, before channels are cut."""

    @abstractmethod
    def scores(self) -> dict[str, Tensor]:
        """For each unit's name its (n,) float64 scores on the CPU, finite and never below 0; high means keep."""
