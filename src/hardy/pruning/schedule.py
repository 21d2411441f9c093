"""Schedules: how scores become a smaller network.

`iterative` prunes while the network is trained: every 30 batches the mean score of those batches enters a moving
average (0.9), the lowest channels, at most 100 more, are masked, and masked channels stay dead; when the ratio is
reached they are cut out. `one_shot` scores a network that stands still and cuts once. Both end by comparing what was
cut with what was masked, on an image of noise: a removal that changes the network is refused.

Source: the loop of Molchanov et al., CVPR 2019, with the numbers of Cai, Li and Kot (arXiv:2210.13810).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.gates import gate_parameters, gate_places
from hardy.pruning.mask import mask, masker
from hardy.pruning.remove import Plan, remove
from hardy.pruning.risk import domain_risks
from hardy.pruning.select import Limits, Removed, select, target
from hardy.pruning.units import Unit
from hardy.seed import seeded
from hardy.types import Batch, Terms

__all__ = ["Pruned", "Tune", "iterative", "one_shot"]

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
    """

    plan: Plan
    removed: Removed
    widths: dict[str, tuple[int, int]]
    scores: dict[str, Tensor]
    rounds: int

    @property
    def ratio(self) -> float:
        """The share of channels removed."""
        return sum(before - after for before, after in self.widths.values()) / sum(b for b, _ in self.widths.values())


def iterative(
    network: Network,
    criterion: Criterion,
    units: Sequence[Unit],
    tune: Tune,
    *,
    ratio: float,
    every: int = 30,
    per_round: int = 100,
    momentum: float = 0.9,
    scope: Literal["global", "layer"] = "global",
    min_width: int = 8,
    round_to: int = 1,
    log: Log | None = None,
) -> Pruned:
    """Prune ``network`` while it is tuned, in place.

    Args:
        network: what is pruned.
        criterion: made for this network and these units.
        units: the network's units.
        tune: the fine-tuning.
        ratio: share of all channels removed, in (0, 1).
        every: steps between rounds.
        per_round: the most channels masked in a round.
        momentum: weight of the past in the scores' moving average; the first mean starts it.
        scope: rank all channels together, or take the same share of every unit.
        min_width: the least width of a unit; a smaller unit stays whole.
        round_to: kept widths are multiples of this.
        log: ``log(step, {"removed": ..., "left": ...})`` after each round.

    Raises:
        InputError: when the limits do not allow ``ratio``, or ``per_round`` lets nothing go.
    """
    limits = Limits(scope, min_width, round_to)
    count = target(units, ratio, limits)
    if every < 1 or per_round < round_to:
        raise InputError(f"every {every} and per_round {per_round}: need at least 1 and at least round_to {round_to}")
    dead, scores, rounds = _rounds(network, criterion, units, tune, count, limits, every, per_round, momentum, log)
    return _finished(network, units, dead, scores, rounds)


def one_shot(
    network: Network,
    criterion: Criterion,
    units: Sequence[Unit],
    batches: Iterable[Batch] = (),
    *,
    ratio: float,
    scope: Literal["global", "layer"] = "global",
    min_width: int = 8,
    round_to: int = 1,
) -> Pruned:
    """Score ``network`` as it stands, in the mode it is in, and remove once, in place.

    Weights, gradients and batch statistics are after the scoring what they were before it.

    Args:
        network: what is pruned.
        criterion: made for this network and these units.
        units: the network's units.
        batches: what is observed; not read by a criterion that needs no data.
        ratio: see `iterative`, as all that follows.
        scope: see there.
        min_width: see there.
        round_to: see there.

    Raises:
        InputError: when the limits do not allow ``ratio``, or no batch comes and the criterion needs one.
    """
    limits = Limits(scope, min_width, round_to)
    count = target(units, ratio, limits)
    if criterion.needs_data:
        _observe(network, criterion, units, batches)
    scores = criterion.scores()
    return _finished(network, units, select(scores, units, count, None, limits), scores, 1)


def _rounds(
    network: Network,
    criterion: Criterion,
    units: Sequence[Unit],
    tune: Tune,
    count: int,
    limits: Limits,
    every: int,
    per_round: int,
    momentum: float,
    log: Log | None,
) -> tuple[Removed, dict[str, Tensor], int]:
    """Train and mask in turn until ``count`` channels are dead, or no further block of them fits.

    Returns:
        the dead channels, the scores that decided last, and how many rounds it took.
    """

    def terms(batch: Batch) -> Terms:
        if criterion.needs_data:
            return criterion.observe(batch)
        return {"risk": domain_risks(network, batch, criterion.pixel_loss)[0].mean()}

    dead: Removed = {}
    average: dict[str, Tensor] = {}
    rounds = gone = 0
    while gone < count:
        criterion.reset()
        tune(every, terms, criterion.collect, masker(network, units, dead))
        average = _smoothed(average, criterion.scores(), momentum)
        chosen = select(average, units, min(per_round, count - gone), dead, limits)
        if not chosen:
            break
        dead = {unit.name: sorted([*dead.get(unit.name, ()), *chosen.get(unit.name, ())]) for unit in units}
        mask(network, units, dead)
        rounds, gone = rounds + 1, sum(map(len, dead.values()))
        if log is not None:
            log(rounds * every, {"removed": float(gone), "left": 1 - gone / sum(unit.size for unit in units)})
    return dead, average, rounds


def _observe(network: Network, criterion: Criterion, units: Sequence[Unit], batches: Iterable[Batch]) -> None:
    criterion.reset()
    with _at_rest(network, units):
        for number, batch in enumerate(batches):
            network.zero_grad(set_to_none=True)
            with seeded(0, "one-shot", number):
                terms = criterion.observe(batch)
                torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            criterion.collect()


@contextmanager
def _at_rest(network: Network, units: Sequence[Unit]) -> Iterator[None]:
    """Only the gates' parameters get gradients inside; buffers, gradients and ``requires_grad`` are put back after."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    for parameter in gate_parameters(gate_places(network, units)):
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, trainable, gradient in before:
            parameter.requires_grad_(trainable)
            parameter.grad = gradient
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])


def _smoothed(average: Mapping[str, Tensor], mean: dict[str, Tensor], momentum: float) -> dict[str, Tensor]:
    """The moving average after ``mean``; the first mean starts it."""
    if not average:
        return mean
    return {name: momentum * average[name] + (1 - momentum) * value for name, value in mean.items()}


def _finished(
    network: Network, units: Sequence[Unit], removed: Removed, scores: dict[str, Tensor], rounds: int
) -> Pruned:
    """Mask, remove, and compare the two."""
    removed = {name: channels for name, channels in removed.items() if channels}
    if not removed:
        raise InputError(
            "nothing can go: the ratio is less than one block of round_to channels; raise it or lower round_to"
        )
    mask(network, units, removed)
    masked = _probe(network)
    plan = remove(network, units, removed)
    smaller = _probe(network)
    apart, size = float((masked - smaller).abs().max()), float(masked.abs().max())
    if not apart <= 1e-3 * max(size, 1.0):  # so that NaN is refused too
        raise RuntimeError(f"removing channels changed the network's logits by {apart:.3g} of {size:.3g}")
    widths = {unit.name: (unit.size, unit.size - len(removed.get(unit.name, ()))) for unit in units}
    return Pruned(plan, removed, widths, scores, rounds)


def _probe(network: Network) -> Tensor:
    """The logits of noise in evaluation mode; the network's mode is put back."""
    modes = {module: module.training for module in network.modules()}
    side = 2 * max(network.least_size, 32)
    noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(network.mean)
    network.eval()
    with torch.no_grad():
        logits: Tensor = network(noise)
    for module, mode in modes.items():
        module.training = mode
    return logits
