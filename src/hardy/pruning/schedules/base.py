"""The interface of a schedule: how scores become a smaller network, and when.

Every schedule ends in `finished`: remove, and compare what was cut with a masked copy on the network's example; a
removal that changes the network is refused.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.goal import Goal
from hardy.pruning.masked import masked_copy
from hardy.pruning.remove import Plan, remove
from hardy.pruning.risk import domain_risks
from hardy.pruning.select import Limits, Removed
from hardy.types import Batch, Terms

__all__ = ["Log", "Pruned", "Schedule", "Tune", "Work", "remove_and_check", "terms_of"]

Tune = Callable[[int, Callable[[Batch], Terms], Callable[[], None], Callable[[], None]], None]
"""``tune(steps, terms, after_backward, after_step)``: train ``steps`` steps more on the sum of ``terms(batch)``, with
one optimiser and one stream of batches over all calls; ``after_backward`` is called when the gradients of a step are
there, before they are clipped, and ``after_step`` after the optimiser's step."""

Log = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Pruned:
    """What a schedule did.

    Attributes:
        plan: the channels kept, relative to the dense network.
        removed: for each unit the channels removed; units that lost none are left out.
        widths: for each unit its width before and after.
        scores: the scores that decided last.
        rounds: how many times channels were chosen.
        steps: how many steps the network was trained or looked at.
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
class Work:
    """What a schedule works on.

    Attributes:
        network: what is pruned, in place.
        criterion: made for this network and these units.
        units: the network's units.
        goal: when enough is removed.
        limits: what a selection respects.
        tune: training, for a schedule that trains.
        batches: an endless stream of batches, for one that looks at a network that stands still.
        log: ``log(step, values)`` after each round, or None.
        good: the stop rule, or None: ``good(removed)`` is True while the network, as it is now and without the channels
            ``removed``, is still good enough. Asked before channels go; the network stays as it is.
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

    def report(self, step: int, dead: Removed, **values: float) -> None:
        """Log how many channels are dead, and ``values``."""
        if self.log is not None:
            gone, total = sum(map(len, dead.values())), sum(unit.size for unit in self.units)
            self.log(step, {"removed": float(gone), "left": 1 - gone / total} | values)


class Schedule(ABC):
    """When channels are scored, masked and removed.

    The constructor takes its options after the ``*``; what it works on comes with `run`.

    Attributes:
        trains: True when the network is trained meanwhile: it needs data whatever the criterion.
    """

    trains: bool = True

    def check(self, work: Work) -> None:  # noqa: B027 - most have nothing more to check
        """Refuse what cannot work, before the first step.

        Raises:
            InputError: saying what and why.
        """

    @abstractmethod
    def run(self, work: Work) -> Pruned:
        """Prune ``work.network`` in place.

        Raises:
            InputError: when nothing can go.
        """


def terms_of(work: Work) -> Callable[[Batch], Terms]:
    """The loss that is trained while the criterion looks on: its own, or the mean of the domain risks."""
    criterion = work.criterion

    def terms(batch: Batch) -> Terms:
        if criterion.needs_data:
            return criterion.observe(batch)
        return {"risk": domain_risks(work.network, batch, criterion.pixel_loss)[0].mean()}

    return terms


def remove_and_check(work: Work, removed: Removed, scores: dict[str, Tensor], rounds: int, steps: int = 0) -> Pruned:
    """Remove, and compare with a copy that is masked.

    Raises:
        InputError: when ``removed`` is empty.
        RuntimeError: when the smaller network computes something else than the masked one.
    """
    network, units = work.network, work.units
    removed = {name: channels for name, channels in removed.items() if channels}
    if not removed:
        raise InputError(
            "nothing can go: the ratio is less than one block of round_to channels; raise it or lower round_to"
        )
    masked = _probe(masked_copy(network, units, removed))
    plan = remove(network, units, removed)
    for one, other in zip(masked, _probe(network), strict=True):
        apart, size = float((one - other).abs().max()), float(one.abs().max())
        if not apart <= 1e-3 * max(size, 1.0):  # so that NaN is refused too
            raise RuntimeError(f"removing channels changed the network's logits by {apart:.3g} of {size:.3g}")
    widths = {unit.name: (unit.size, unit.size - len(removed.get(unit.name, ()))) for unit in units}
    return Pruned(plan, removed, widths, scores, rounds, steps)


def _probe(network: Network) -> list[Tensor]:
    """What is read of the network's outputs for its example in evaluation mode; the network's mode is put back."""
    modes = {module: module.training for module in network.modules()}
    example = network.example(side=32, count=1).to(next(network.parameters()).device)
    network.eval()
    with torch.no_grad():
        read = network.read(example)
    for module, mode in modes.items():
        module.training = mode
    return read
