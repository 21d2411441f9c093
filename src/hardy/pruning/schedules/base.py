"""The interface of a pruning schedule: when channels are scored, masked and removed.

Every pruning schedule ends with `remove_and_check`. It removes the channels and compares the network with a masked copy
on the network's example. If the outputs differ, it raises an error.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.agreement import readings
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.goal import Goal
from hardy.pruning.masked import masked_copy
from hardy.pruning.remove import Plan, remove
from hardy.pruning.risk import domain_risks
from hardy.pruning.select import Limits, Removed
from hardy.types import Batch, Terms

__all__ = ["Apart", "Log", "Pruned", "Schedule", "Tune", "Work", "remove_and_check", "terms_of"]

Tune = Callable[[int, Callable[[Batch], Terms], Callable[[], None], Callable[[], None]], None]
"""``tune(steps, terms, after_backward, after_step)``: train for ``steps`` more steps on the sum of ``terms(batch)``.
All calls share one optimiser and one stream of batches. ``after_backward`` is called after the backward pass of a step,
before gradients are clipped, and ``after_step`` after the optimiser step."""

Log = Callable[[int, dict[str, float]], None]
"""``log(step, values)``."""


@dataclass(frozen=True)
class Pruned:
    """The result of a pruning schedule.

    Attributes:
        plan: the channels kept, relative to the dense network.
        removed: for each unit the channels removed; units without removed channels are left out.
        widths: for each unit its width before and after.
        scores: the scores of the last selection.
        rounds: the number of selections.
        steps: the number of training steps, or of scored batches.
    """

    plan: Plan
    removed: Removed
    widths: dict[str, tuple[int, int]]
    scores: dict[str, Tensor]
    rounds: int
    steps: int = 0

    @property
    def ratio(self) -> float:
        """The share of channels removed."""
        return sum(before - after for before, after in self.widths.values()) / sum(b for b, _ in self.widths.values())


@dataclass(frozen=True)
class Apart:
    """Scoring apart from training, by passes that do not change the network.

    Attributes:
        pixel_loss: the loss of one output head in the training steps between the rounds.
        batches: the number of batches for each scoring; None for the number of the schedule, or 30.
        running: whether batch norms use their running statistics.
    """

    pixel_loss: PixelLoss
    batches: int | None = None
    running: bool = False


@dataclass(frozen=True)
class Work:
    """What a pruning schedule works on.

    Attributes:
        network: the network to prune, in place.
        criterion: the criterion, made for this network and these units.
        units: the network's units.
        goal: decides whether enough channels are removed.
        limits: the limits of a selection.
        tune: the training function, for a schedule that trains.
        batches: an endless stream of batches, for a schedule that scores without training.
        log: ``log(step, values)``, called after each round, or None.
        good: the stop rule, or None. ``good(removed)`` is True if the current network without the channels ``removed``
            is good enough. It is called before channels are removed and does not change the network.
        apart: how the criterion is scored apart from training, over ``batches``; None if a schedule that trains scores
            the batches on which it trains.
    """

    network: Network
    criterion: Criterion
    units: Sequence[Unit]
    goal: Goal
    limits: Limits
    tune: Tune | None = None
    batches: Iterable[Batch] = ()
    log: Log | None = None
    good: Callable[[Removed], bool] | None = None
    apart: Apart | None = None

    def report(self, step: int, dead: Removed, **values: float) -> None:
        """Log the number of channels that are masked or removed, the share that is left, and ``values``."""
        if self.log is not None:
            gone, total = sum(map(len, dead.values())), sum(unit.size for unit in self.units)
            self.log(step, {"removed": float(gone), "left": 1 - gone / total} | values)

    def readings(self, dead: Removed) -> dict[str, float]:
        """See `hardy.pruning.agreement.readings`; empty without a log. Call it before more channels are masked."""
        return {} if self.log is None else readings(self.criterion, self.units, self.goal, dead, self.limits)


class Schedule(ABC):
    """A pruning schedule: when channels are scored, masked and removed.

    The constructor takes its options after the ``*``; `run` gets the `Work`.

    Attributes:
        trains: True if it trains the network; then it needs data with every criterion.
    """

    trains: bool = True

    def check(self, work: Work) -> None:  # noqa: B027 - most schedules have nothing to check
        """Check before the first step that the schedule can do ``work``.

        Raises:
            InputError: if it cannot; the message gives the reason.
        """

    @abstractmethod
    def run(self, work: Work) -> Pruned:
        """Prune ``work.network`` in place.

        Raises:
            InputError: if no channel can be removed.
        """


def terms_of(work: Work) -> Callable[[Batch], Terms]:
    """The training loss during pruning: that of the criterion, or the mean of the domain risks."""
    criterion = work.criterion
    pixel_loss = work.apart.pixel_loss if work.apart else criterion.pixel_loss

    def terms(batch: Batch) -> Terms:
        if criterion.needs_data and work.apart is None:
            return criterion.observe(batch)
        return {"risk": domain_risks(work.network, batch, pixel_loss)[0].mean()}

    return terms


def remove_and_check(work: Work, removed: Removed, scores: dict[str, Tensor], rounds: int, steps: int = 0) -> Pruned:
    """Remove the channels ``removed``, in place, and compare the network with a masked copy.

    Raises:
        InputError: if ``removed`` is empty.
        RuntimeError: if the pruned network and the masked copy compute different outputs.
    """
    network, units = work.network, work.units
    removed = {name: channels for name, channels in removed.items() if channels}
    if not removed:
        raise InputError(
            "nothing can be removed: the ratio is less than one block of round_to channels; raise it or lower round_to"
        )
    masked = _probe(masked_copy(network, units, removed))
    work.criterion.release()
    plan = remove(network, units, removed)
    for one, other in zip(masked, _probe(network), strict=True):
        apart, size = float((one - other).abs().max()), float(one.abs().max())
        if not apart <= 1e-3 * max(size, 1.0):  # also raises for NaN
            raise RuntimeError(f"removing channels changed the network's logits by {apart:.3g} of {size:.3g}")
    widths = {unit.name: (unit.size, unit.size - len(removed.get(unit.name, ()))) for unit in units}
    return Pruned(plan, removed, widths, scores, rounds, steps)


def _probe(network: Network) -> list[Tensor]:
    """The outputs for the example of the network in evaluation mode; the modes are restored."""
    modes = {module: module.training for module in network.modules()}
    example = network.example(side=32, count=1).to(next(network.parameters()).device)
    network.eval()
    with torch.no_grad():
        read = network.read(example)
    for module, mode in modes.items():
        module.training = mode
    return read
