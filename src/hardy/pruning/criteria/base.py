"""The interface of a criterion, which scores the importance of channels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from hardy.networks.base import Network, PixelLoss
from hardy.pruning.coupled import Unit
from hardy.types import Batch, Terms

__all__ = ["Criterion", "Halves"]

Halves = tuple[dict[str, Tensor], dict[str, Tensor]]
"""The scores of two halves of the data, each as `Criterion.scores` returns them."""


class Criterion(ABC):
    """Scores every channel of every unit of a network; the lowest scores are pruned first.

    In each step the gradients are cleared, `observe` returns the loss terms of a batch, their sum is backpropagated,
    and `collect` is called. After some steps `scores` returns the mean over everything collected since the last
    `reset`. A step may scale the loss, or split its batch into several calls of `observe` before one call of `collect`.
    A criterion that reads only weights sets ``needs_data = False``; then `observe` is never called.

    The constructor takes ``network``, ``units`` and ``pixel_loss`` before the ``*`` and its options after it. The
    attribute ``units`` holds the units that are ranked: those given, unless an option chooses other gates.
    """

    needs_data: bool = True
    needs_domains: int = 1
    """The smallest number of domains that a batch must hold for the score to be defined."""
    sparse: bool = False
    """True when it has a `penalty`; its scores are then the scales that the penalty shrinks."""
    strength: float = 0.0
    """The current factor of the penalty; the pruning schedule sets it, and a criterion can read it."""

    def __init__(self, network: Network, units: Sequence[Unit], pixel_loss: PixelLoss) -> None:
        self.network = network
        self.units = units
        self.pixel_loss = pixel_loss

    def observe(self, batch: Batch) -> Terms:
        """Return the loss terms of ``batch``; ``sum(terms.values()).backward()`` completes the observation."""
        raise AssertionError(f"{type(self).__name__} reads weights only and has no observe")

    def collect(self) -> None:  # noqa: B027 - only gradient criteria need it
        """Read the gradients after the backward passes of a step, before they are clipped or cleared."""

    def reset(self) -> None:  # noqa: B027 - only criteria that collect need it
        """Clear everything collected."""

    def penalty(self) -> Tensor | None:
        """The sparsity term of sparse training for the last observed batch; None for a criterion without one.

        It is a scalar with gradients to the gates' parameters. It includes the weight of each gate; the pruning
        schedule multiplies it by the strength.
        """
        return None

    def release(self) -> None:  # noqa: B027 - only criteria with parameters of their own need it
        """Fold added parameters into the network, in place; called once, before channels are cut."""

    @abstractmethod
    def scores(self) -> dict[str, Tensor]:
        """For each unit's name its (n,) float64 scores on the CPU, finite and at least 0; a high score means keep.

        Raises:
            InputError: if the criterion needs data and has not collected enough.
        """

    def halves(self) -> Halves | None:
        """The scores of every other step since the last `reset`, and those of the steps between them.

        None for fewer than two steps, and for a criterion whose score is not a mean over steps.
        """
        return None

    def rivals(self) -> Mapping[str, dict[str, Tensor]]:
        """Scores of other criteria from the same observations, by the criterion's name, as `scores` returns them."""
        return {}

    def readings(self) -> dict[str, float]:
        """Numbers about what was collected since the last `reset`, by name, for the records."""
        return {}
