"""The interface of a training algorithm: it maps a batch to named loss terms."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.types import Batch, Terms

__all__ = ["Algorithm", "TextTable"]


class TextTable(NamedTuple):
    """Rows of text to show.

    Attributes:
        title: what they are.
        columns: the heads.
        rows: a text for each column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Algorithm(nn.Module, ABC):
    """A way to train ``network``: `forward` returns the loss terms of a batch.

    The training loop (`hardy.engine.fit`) sums the terms, runs the backward pass, steps the optimiser and calls
    `after_step`. An algorithm registers what it learns besides the network as its own parameters, and what it keeps
    from step to step as buffers; a checkpoint holds both. A part with its own optimiser, such as a critic, is stepped
    inside `forward`; see `optimisers`.

    The constructor takes ``network`` and ``pixel_loss`` before the ``*``. Its options follow the ``*``; each has a type
    and a default. An algorithm that learns from another network also takes a ``teacher`` before the ``*``, a
    `hardy.networks.building.teacher.Teacher`; one that changes at a share of the run takes ``steps``, their number.
    """

    needs_domains: int = 1
    """The smallest number of domains that a batch must hold for the terms to be defined."""
    trains_network: bool = True
    """False when the algorithm trains something else and leaves the network unchanged."""
    reaches_all: bool = True
    """False when some steps give some parameters no gradient; then it is refused in a run of several processes."""
    reads_weights: bool = False
    """True when it reads, copies or differentiates by weights itself; then it is refused in a sharded run."""
    uses_unlabelled: bool = False
    """True when `forward` learns from images without labels, those of domain -1; all their labels are `IGNORE`. An
    instance sets it to False when its options leave nothing to learn from them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """The named scalar loss terms of ``batch``."""

    def table(self) -> TextTable | None:
        """What to show before the first step, such as which features are compared; None for nothing."""
        return None

    def chosen(self) -> Mapping[str, Any]:
        """The options that the recipe leaves to the algorithm, such as its usual losses, with the values in use."""
        return {}

    def notes(self) -> Mapping[str, float]:
        """Numbers that training found, such as a weight that it measured, for the notes of the run's records."""
        return {}

    def optimisers(self) -> Mapping[str, Optimizer]:
        """The optimisers that `forward` steps, by names that the algorithm chooses; none by default.

        Create them in the constructor. They hold parameters of the algorithm, which the training loop neither steps,
        clips nor decays. The checkpoint keeps their state. The loop's backward pass leaves gradients in these
        parameters: set them to zero before each backward pass of the algorithm's own.
        """
        return {}

    def check(self, domains: int, batch: int) -> None:
        """Check, before the first step, that the algorithm can work on the data.

        Args:
            domains: how many domains are trained on.
            batch: the smallest number of images that one call of `forward` gets.

        Raises:
            InputError: when it cannot; the message names the key, its value and what is needed.
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
        """Whether to reset the optimiser's moments before step ``step`` (the first is 1).

        For an objective that changes abruptly at a known step. The answer depends on ``step`` alone, so a resumed run
        resets at the same step as one that was never interrupted.
        """
        return False

    def rate_factor(self, step: int) -> float:
        """The factor on the learning rates of step ``step`` (the first is 1), beside that of the schedule.

        It depends on ``step`` alone, as `restarts` does.
        """
        return 1.0

    def after_backward(self) -> None:
        """Called after the backward pass of a step, before gradients are clipped or used."""

    def after_step(self, step: int) -> None:
        """Called after optimiser step ``step`` (the first is 1)."""

    def peers(self) -> Mapping[str, Network]:
        """The networks that are trained beside ``network`` and not shipped, by names that are folder names.

        A run measures them at its end, records their scores, and saves them in its folder.
        """
        return {}

    def keep(self, folder: Path) -> None:
        """Write what was learned besides the network to the run's ``folder``; called once, after the last step."""
