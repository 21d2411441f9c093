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
        title: the title of the table.
        columns: the column headings.
        rows: for each row one text per column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Algorithm(nn.Module, ABC):
    """A way to train ``network``: `forward` returns the loss terms of a batch.

    The training loop (`hardy.engine.fit`) sums the terms, runs the backward pass, steps the optimiser and calls
    `after_step`. If an algorithm trains more than the network, it registers these weights as its own parameters. What
    it keeps from step to step it registers as buffers. A checkpoint holds both. A part with its own optimiser, such as
    a critic, is stepped inside `forward`; see `optimisers`.

    The constructor takes ``network`` and ``pixel_loss`` before the ``*``. Its options follow the ``*``; each has a type
    and a default. An algorithm that learns from another network also takes a ``teacher`` before the ``*``, a
    `hardy.networks.building.teacher.Teacher`; one that changes at a share of the run takes ``steps``, their number.
    """

    needs_domains: int = 1
    """The smallest number of domains that a batch must hold for the terms to be defined."""
    trains_network: bool = True
    """False when the algorithm trains something else and leaves the network unchanged."""
    reaches_all: bool = True
    """False when in some steps some parameters get no gradient. A run of several processes refuses such an algorithm.
    """
    reads_weights: bool = False
    """True when the algorithm itself reads or copies weights or computes gradients of them. A sharded run refuses such
    an algorithm."""
    uses_unlabelled: bool = False
    """True when `forward` learns from images without labels. These have the domain -1, and all their labels are
    `IGNORE`. An instance sets it to False when its options use no unlabelled images."""

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
        """The options that the recipe leaves to the algorithm, such as its default losses, with the values in use."""
        return {}

    def notes(self) -> Mapping[str, float]:
        """Numbers that training found, such as a weight that it measured, for the notes of the run's records."""
        return {}

    def optimisers(self) -> Mapping[str, Optimizer]:
        """The optimisers that `forward` steps, by names that the algorithm chooses; none by default.

        Create them in the constructor. They hold parameters of the algorithm. The training loop does not step, clip or
        decay these parameters, and the checkpoint keeps the state of these optimisers. The loop's backward pass leaves
        gradients in these parameters, so set the gradients to zero before each backward pass in `forward`.
        """
        return {}

    def check(self, domains: int, batch: int) -> None:
        """Check, before the first step, that the algorithm can work on the data.

        Args:
            domains: the number of training domains.
            batch: the smallest number of images that one call of `forward` gets.

        Raises:
            InputError: when it cannot. The message names the key, its value and what is needed.
        """
        name, least = type(self).__name__, self.needs_domains
        if domains < least:
            raise InputError(
                f"algorithm: {name} compares domains and data.sources names {domains}; name {least} or more, or use erm"
            )
        if batch < least:
            raise InputError(
                f"optim.batch: {name} compares {least} domains, but one part of the batch on one process has {batch} "
                f"image; use {least} or more images per process and part"
            )

    def restarts(self, step: int) -> bool:
        """Whether to reset the optimiser's moments before step ``step`` (the first is 1).

        For an objective that changes abruptly at a known step. The answer depends only on ``step``, so a resumed run
        resets at the same step as a run that was never interrupted.
        """
        return False

    def rate_factor(self, step: int) -> float:
        """The learning-rate factor of step ``step`` (the first is 1), applied on top of the schedule's factor.

        It depends only on ``step``, as `restarts` does.
        """
        return 1.0

    def after_backward(self) -> None:
        """Called after the backward pass of a step, before gradients are clipped or used."""

    def after_step(self, step: int) -> None:
        """Called after optimiser step ``step`` (the first is 1)."""

    def peers(self) -> Mapping[str, Network]:
        """The networks that are trained together with ``network`` but are not the result; the keys are folder names.

        A run measures them at its end, records their scores, and saves them in its folder.
        """
        return {}

    def keep(self, folder: Path) -> None:
        """Write to the run's ``folder`` what was learned besides the network. Called once, after the last step."""
