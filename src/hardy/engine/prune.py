"""Pruning as a stage of a run: a criterion, a schedule, and the training loop that goes on meanwhile."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hardy.algorithms.base import Algorithm
from hardy.engine import protocol
from hardy.engine.device import pick
from hardy.engine.fit import Fit, Log
from hardy.engine.protocol import Split
from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.schedule import Pruned, iterative, one_shot
from hardy.pruning.select import Limits, target
from hardy.pruning.units import Survey, Unit, survey
from hardy.recipe import Data, Optim, Prune, Run
from hardy.registry import CRITERIA
from hardy.seed import seeded
from hardy.types import Batch, Terms

__all__ = ["Surgery", "prune", "rehearse"]

_ENDLESS = 10**9
"""Steps of the loop that a schedule advances piece by piece and ends itself."""


@dataclass(frozen=True)
class Surgery:
    """What pruning did to a network.

    Attributes:
        pruned: see `hardy.pruning.schedule.Pruned`.
        blocked: channels that cannot go, by the layer that makes them, with the reason.
    """

    pruned: Pruned
    blocked: dict[str, str]


class _Watched(Algorithm):
    """The terms and hooks that a schedule sets for its next steps."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.terms: Callable[[Batch], Terms] = lambda batch: {}
        self.hooks: tuple[Callable[[], None], Callable[[], None]] = (lambda: None, lambda: None)

    def forward(self, batch: Batch) -> Terms:
        return self.terms(batch)

    def after_backward(self) -> None:
        self.hooks[0]()

    def after_step(self, step: int) -> None:
        self.hooks[1]()


def prune(
    network: Network, choice: Prune, parts: Split, *, pixel_loss: PixelLoss, data: Data, optim: Optim, run: Run,
    log: Log | None = None,
) -> Surgery:  # fmt: skip
    """Prune ``network`` in place as ``choice`` says.

    With the iterative schedule the network is trained meanwhile at the constant rate ``choice.lr``, on the batches
    of the sources; with the one-shot schedule it is scored as it stands on ``choice.every`` batches.

    Args:
        network: what is pruned.
        choice: criterion, ratio and schedule.
        parts: the images; only the sources' training images are used.
        pixel_loss: the loss of one head.
        data: how images are transformed.
        optim: batch size and optimiser; its rate, steps and schedule are not used.
        run: seed, device and workers.
        log: called as the training loop and the schedule do.

    Raises:
        InputError: when nothing can be pruned, the ratio cannot be reached, a criterion that compares domains gets
            one only, or one that needs data gets none; or in a parallel run.
    """
    found, criterion = _prepared(network, choice, parts, pixel_loss, optim, run)
    network.to(pick(run.device))
    limits = _limits(choice)
    if choice.schedule == "one-shot":
        pruned = _standing(network, criterion, found.units, choice, parts, data, optim, run, limits)
    else:
        pruned = _moving(network, criterion, found.units, choice, parts, data, optim, run, limits, log)
    network.to("cpu")
    return Surgery(pruned, dict(found.blocked))


def rehearse(
    network: Network, choice: Prune, parts: Split, *, pixel_loss: PixelLoss, optim: Optim, run: Run
) -> None:  # fmt: skip
    """Raise what `prune` would before its first step, on a copy: worth knowing before a network is trained for it."""
    _prepared(deepcopy(network), choice, parts, pixel_loss, optim, run)


def _prepared(
    network: Network, choice: Prune, parts: Split, pixel_loss: PixelLoss, optim: Optim, run: Run
) -> tuple[Survey, Criterion]:  # fmt: skip
    """The units of ``network`` and the criterion, after all that can be known beforehand was checked."""
    found = survey(network)
    if not found.units:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(found.blocked.items())[:3])
        raise InputError(f"nothing of {type(network).__name__} can be pruned: {reasons or 'it has no convolution'}")
    with seeded(run.seed, "criterion"):
        name, options = choice.criterion.name, choice.criterion.options
        criterion = CRITERIA.build(name, network, found.units, pixel_loss, **options)
    _check(criterion, choice, parts, optim)
    target(found.units, choice.ratio, Limits(**_limits(choice)))
    return found, criterion


def _limits(choice: Prune) -> dict[str, Any]:
    return {"scope": choice.scope, "min_width": choice.min_width, "round_to": choice.round_to}


def _check(criterion: Criterion, choice: Prune, parts: Split, optim: Optim) -> None:
    name = choice.criterion.name
    if not parts.train and (criterion.needs_data or choice.schedule == "iterative" or choice.recovery):
        raise InputError(
            f"prune: {name} with the {choice.schedule} schedule and {choice.recovery} steps of recovery needs data; "
            "name data.sources"
        )
    if criterion.needs_data and len(parts.train) < criterion.needs_domains:
        raise InputError(
            f"prune.criterion: {name} compares domains and data.sources names {len(parts.train)}: the variance of one "
            f"risk is 0; name {criterion.needs_domains} or more, or use taylor"
        )
    if criterion.needs_data and optim.batch < criterion.needs_domains:
        raise InputError(f"optim.batch: {optim.batch} images cannot hold {criterion.needs_domains} domains")


def _standing(
    network: Network, criterion: Criterion, units: tuple[Unit, ...], choice: Prune, parts: Split, data: Data,
    optim: Optim, run: Run, limits: dict[str, Any],
) -> Pruned:  # fmt: skip
    device = pick(run.device)
    network.train()
    stream: Iterator[Batch] = iter(())
    if criterion.needs_data:
        batches = protocol.training(parts.train, data, network.labels, optim, run, stage="score")
        stream = (batch.to(device) for batch in islice(batches(0, 0, 1), choice.every))
    return one_shot(network, criterion, units, stream, ratio=choice.ratio, **limits)


def _moving(
    network: Network, criterion: Criterion, units: tuple[Unit, ...], choice: Prune, parts: Split, data: Data,
    optim: Optim, run: Run, limits: dict[str, Any], log: Log | None,
) -> Pruned:  # fmt: skip
    algorithm = _Watched(network)
    steady = optim.model_copy(
        update={"lr": choice.lr, "steps": _ENDLESS, "schedule": "constant", "warm_up": 0, "ema": None}
    )
    batches = protocol.training(parts.train, data, network.labels, optim, run, stage="score")
    loop = Fit(algorithm, batches, steady, run, stage="score", log=log)
    if loop.accelerator.num_processes > 1:
        raise InputError("prune: scores are not averaged over processes; prune in one process, recover in several")

    def tune(
        steps: int, terms: Callable[[Batch], Terms], after_backward: Callable[[], None], after_step: Callable[[], None]
    ) -> None:
        algorithm.terms, algorithm.hooks = terms, (after_backward, after_step)
        loop.run(steps)

    return iterative(
        network, criterion, units, tune, ratio=choice.ratio, every=choice.every, per_round=choice.per_round,
        momentum=choice.momentum, log=log, **limits,
    )  # fmt: skip
