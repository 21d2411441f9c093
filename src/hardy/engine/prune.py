"""Pruning as a stage of a run: a criterion, a schedule, and the training loop that goes on meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from hardy.algorithms.base import Algorithm
from hardy.device import pick
from hardy.engine import protocol, safeguards
from hardy.engine.fit import Fit, Log
from hardy.engine.held import Batches, Held
from hardy.engine.protocol import Settings, Split
from hardy.engine.safeguards import Sight
from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.networks.building.adapted import Adapted
from hardy.ops.returned import logits_in
from hardy.ops.tensors import check_finite
from hardy.pruning.coupled import Kind
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.left_alone import left_alone
from hardy.pruning.schedules.base import Pruned, Schedule, Tune, Work
from hardy.pruning.sweep import Sweep
from hardy.pruning.units import Survey, survey
from hardy.pruning.weight_norm import duplicate
from hardy.recipe import Prune
from hardy.registry import CRITERIA, LOSSES, SCHEDULES
from hardy.sections import Floors, Method, RunSection
from hardy.seed import seeded
from hardy.timing.targets import Outcome, Target, limits_of, target_of
from hardy.types import Batch, Terms

__all__ = ["Surgery", "prune", "prune_module", "rehearse", "sensitivity"]

Module = TypeVar("Module", bound=nn.Module)

_ENDLESS = 10**9
"""Steps of the loop that a schedule advances piece by piece and ends itself."""


@dataclass(frozen=True)
class Surgery:
    """What pruning did to a network.

    Attributes:
        pruned: see `hardy.pruning.schedules.base.Pruned`.
        blocked: channels that cannot go, by the layer that makes them, with the reason.
        outcome: what a target of cost came to, None for a ratio.
        sweep: the sensitivities that gave the floors, None where none were measured.
        kinds: for each unit what its channels are.
    """

    pruned: Pruned
    blocked: dict[str, str]
    outcome: Outcome | None = None
    sweep: Sweep | None = None
    kinds: dict[str, Kind] = field(default_factory=dict)


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


def prune(network: Network, choice: Prune, sight: Sight, *, pixel_loss: PixelLoss, log: Log | None = None) -> Surgery:
    """Prune ``network`` in place as ``choice`` says.

    A schedule that trains does so at the constant rate ``choice.lr``, on the batches of the sources.

    Args:
        network: what is pruned.
        choice: criterion, schedule and goal.
        sight: the images and how they are read and measured; the sources' training images are used, and their held-out
            ones where floors are measured. Of the optimiser, rate, steps and schedule are not used.
        pixel_loss: the loss of one head.
        log: called as the training loop and the schedule do.

    Raises:
        InputError: when nothing can be pruned, the goal cannot be reached, a criterion that compares domains gets
            one only, or one that needs data gets none; for a stop rule on domains that may not choose; or in a parallel
            run.
    """
    found, schedule, work, target = _prepared(network, choice, sight, pixel_loss)
    held, run = safeguards.checked(choice, network, sight), sight.settings.run
    if sight.held is None:
        network.to(pick(run.device))
    sweep = None
    if choice.floors:
        sweep = safeguards.swept(work, choice.floors, sight)
        limits = replace(work.limits, floors=sweep.floors(choice.floors.tolerance))
        target = target_of(network, work.units, choice, limits, _size(sight), run)
        work = replace(work, limits=limits, goal=target.goal)
    if held:
        work = replace(work, good=safeguards.stop_rule(work, choice, held, sight))
    if schedule.trains:
        with _training(network, choice, sight, log) as tune:
            pruned = schedule.run(replace(work, tune=tune, log=log))
    else:
        if sight.held is None:
            network.train()
        if work.criterion.needs_data:
            work = replace(work, batches=sight.batches(network, "score"))
        pruned = schedule.run(work)
    safeguards.reestimated(network, choice, sight)
    if sight.held is None:
        network.to("cpu")
    narrow = {network.known_as(name): why for name, why in work.limits.unprunable(work.units).items()}
    kinds = {unit.name: unit.kind for unit in work.units}
    return Surgery(pruned, {**found.blocked, **narrow}, target.outcome(pruned.removed), sweep, kinds)


def prune_module(
    module: Module,
    example: Tensor,
    choice: Prune,
    *,
    data: Batches | None = None,
    loss: Method | None = None,
    run: RunSection | None = None,
) -> tuple[Module, Surgery]:
    """A smaller copy of any module, in evaluation mode, and what pruning did; ``module`` itself stays as it is.

    The copy has the attribute ``hardy_plan``: `hardy.pruning.remove.replay` cuts a fresh module to the same shape.

    Args:
        module: its forward pass takes one tensor. It is scored in the mode that it is in.
        example: an input such as noise, of a size that the module accepts.
        choice: criterion, ratio, kinds of units and limits; the schedule must be one that does not train.
        data: what a criterion that reads gradients looks at; of its first ``choice.reestimate`` batches the statistics
            of batch norms are estimated after the cut.
        loss: the loss of the logits; cross entropy by default.
        run: its seed is that of all that is drawn.

    Raises:
        InputError: when the module does not run on ``example``, and what `prune` raises.
    """
    check_finite(module)
    held = Held(data)
    network = Adapted(duplicate(module), example)
    sight = Sight(Split((), (), ()), Settings(run=run or RunSection()), held)
    surgery = prune(network, choice, sight, pixel_loss=_loss_of(network, loss))
    small = network.module.eval()
    small.hardy_plan = {network.known_as(name): sides for name, sides in surgery.pruned.plan.items()}  # type: ignore[assignment]
    return cast(Module, small), surgery


def _loss_of(network: Adapted, loss: Method | None) -> PixelLoss:
    """The loss of as many classes as the module has logits."""
    twin = duplicate(network.module).eval()
    device = next((value.device for value in twin.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            logits = logits_in(twin(network.example().to(device)))
    except Exception:
        logits = None
    chosen = loss or Method(name="cross_entropy")
    count = logits.shape[1] if logits is not None and logits.ndim > 1 else 1
    return cast(PixelLoss, LOSSES.build(chosen.name, {"class_count": count}, **chosen.options))


def sensitivity(network: Network, choice: Prune, sight: Sight, *, pixel_loss: PixelLoss) -> Sweep:
    """The sweep that the floors of ``choice`` come from, with the usual floors where it has none, on a copy.

    Raises:
        InputError: what `prune` raises before its first step.
    """
    trial = deepcopy(network)
    work = _prepared(trial, choice, sight, pixel_loss)[2]
    trial.to(pick(sight.settings.run.device))
    return safeguards.swept(work, choice.floors or Floors(), sight)


def rehearse(network: Network, choice: Prune, sight: Sight, *, pixel_loss: PixelLoss) -> None:
    """Raise what `prune` would before its first step, on a copy: worth knowing before a network is trained for it."""
    _prepared(deepcopy(network), choice, sight, pixel_loss)
    safeguards.checked(choice, network, sight)


def _size(sight: Sight) -> tuple[int, int]:
    return sight.settings.data.size or sight.settings.data.crop


def _prepared(
    network: Network, choice: Prune, sight: Sight, pixel_loss: PixelLoss
) -> tuple[Survey, Schedule, Work, Target]:
    """The units of ``network``, the schedule, work and target, after all that can be known beforehand was checked."""
    found = survey(network)
    asked = [unit for unit in found.units if unit.kind in choice.kinds]
    units, kept = left_alone(network, asked, choice.keep)
    found = replace(found, blocked={**found.blocked, **kept})
    if not units:
        have = ", ".join(sorted({unit.kind for unit in found.units})) if not kept else ""
        reasons = "; ".join(f"{name}: {why}" for name, why in list((kept or found.blocked).items())[:3])
        why = f"its units are {have}" if have else reasons or "it has no convolution"
        raise InputError(f"nothing of {type(network.get_submodule(network.part)).__name__} can be pruned: {why}")
    run = sight.settings.run
    with seeded(run.seed, "criterion"):
        name, options = choice.criterion.name, choice.criterion.options
        criterion: Criterion = CRITERIA.build(
            name, {"network": network, "units": units, "pixel_loss": pixel_loss}, **options
        )
    units = list(criterion.units)
    schedule: Schedule = SCHEDULES.build(choice.schedule.name, **choice.schedule.options)
    _check(criterion, schedule, choice, sight)
    limits = limits_of(choice, run)
    target = target_of(network, units, choice, limits, _size(sight), run)
    work = Work(network, criterion, units, target.goal, limits)
    schedule.check(work)
    return found, schedule, work, target


def _check(criterion: Criterion, schedule: Schedule, choice: Prune, sight: Sight) -> None:
    name, parts, batch = choice.criterion.name, sight.parts, sight.settings.optim.batch
    if sight.held is not None:
        if criterion.needs_data and not sight.held.given:
            raise InputError(f"criterion {name!r} needs data: give data=[(images, labels), ...], or use l2")
        return
    if not parts.train and (criterion.needs_data or schedule.trains or choice.recovery):
        kinds: dict[str, type[Criterion]] = {each: CRITERIA.get(each) for each in CRITERIA}
        free = ", ".join(each for each, kind in kinds.items() if not kind.needs_data)
        raise InputError(
            f"prune: {name} with the {choice.schedule.name} schedule and {choice.recovery} steps of recovery needs "
            f"data; name data.sources, or prune one_shot without recovery by one of: {free}"
        )
    if criterion.needs_data and len(parts.train) < criterion.needs_domains:
        raise InputError(
            f"prune.criterion: {name} compares domains and data.sources names {len(parts.train)}: the variance of one "
            f"risk is 0; name {criterion.needs_domains} or more, or use taylor"
        )
    if criterion.needs_data and batch < criterion.needs_domains:
        raise InputError(f"optim.batch: {batch} images cannot hold {criterion.needs_domains} domains")


@contextmanager
def _training(network: Network, choice: Prune, sight: Sight, log: Log | None) -> Iterator[Tune]:
    """Fine-tuning at the constant rate of ``choice``, piece by piece, inside the block."""
    algorithm = _Watched(network)
    settings = sight.settings
    steady = settings.optim.model_copy(
        update={"lr": choice.lr, "steps": _ENDLESS, "schedule": "constant", "warm_up": 0, "ema": None}
    )
    batches = protocol.training(sight.parts.train, network.labels, settings, stage="score")
    loop = Fit(algorithm, batches, steady, settings.run, stage="score", log=log)
    if loop.accelerator.num_processes > 1:
        raise InputError("prune: scores are not averaged over processes; prune in one process, recover in several")

    def tune(
        steps: int, terms: Callable[[Batch], Terms], after_backward: Callable[[], None], after_step: Callable[[], None]
    ) -> None:
        algorithm.terms, algorithm.hooks = terms, (after_backward, after_step)
        loop.run(steps)

    with closing(loop):
        yield tune
