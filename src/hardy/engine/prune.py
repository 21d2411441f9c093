"""Pruning as a stage of a run: a criterion, a pruning schedule, and the training between its rounds."""

from collections.abc import Callable, Iterable, Iterator
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
from hardy.engine.memory_batches import Batches, MemoryBatches
from hardy.engine.protocol import Settings, Split
from hardy.engine.safeguards import DataView
from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.networks.building.adapted import Adapted
from hardy.networks.styles.dsp import load_dsp
from hardy.ops.returned import logits_in
from hardy.ops.tensors import check_finite
from hardy.pruning.coupled import Kind
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.left_alone import left_alone
from hardy.pruning.restyled import restyled
from hardy.pruning.risk import per_image
from hardy.pruning.schedules.base import Apart, Pruned, Schedule, Tune, Work
from hardy.pruning.sweep import Sweep
from hardy.pruning.units import Survey, survey
from hardy.pruning.weight_norm import duplicate
from hardy.recipe import Prune
from hardy.registry import CRITERIA, LOSSES, SCHEDULES
from hardy.sections import Floors, Method, RunSection
from hardy.seed import key, seeded
from hardy.timing.targets import Outcome, Target, limits_of, target_of
from hardy.types import Batch, Terms

__all__ = ["Surgery", "prune", "prune_module", "rehearse", "sensitivity", "to_score"]

Module = TypeVar("Module", bound=nn.Module)

_ENDLESS = 10**9
"""Steps of the training loop; the pruning schedule advances it in pieces and ends it."""


@dataclass(frozen=True)
class Surgery:
    """The result of pruning a network.

    Attributes:
        pruned: see `hardy.pruning.schedules.base.Pruned`.
        blocked: the layers whose channels cannot be removed, with the reason.
        outcome: the outcome of a cost target, None for a ratio.
        sweep: the sensitivities that gave the minimum widths, None when they were not measured.
        kinds: for each coupled group what its channels are.
        rounds: of each round the step at its end, and what was logged: see `hardy.pruning.agreement.readings`.
    """

    pruned: Pruned
    blocked: dict[str, str]
    outcome: Outcome | None = None
    sweep: Sweep | None = None
    kinds: dict[str, Kind] = field(default_factory=dict)
    rounds: list[tuple[int, dict[str, float]]] = field(default_factory=list)


class _Watched(Algorithm):
    """An algorithm whose loss terms and hooks the pruning schedule sets for its next steps."""

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


def prune(network: Network, choice: Prune, view: DataView, *, pixel_loss: PixelLoss, log: Log | None = None) -> Surgery:
    """Prune ``network`` in place as ``choice`` says.

    A pruning schedule that trains uses the constant learning rate ``choice.lr``, and training batches of the sources.

    Args:
        network: what is pruned.
        choice: criterion, pruning schedule and goal.
        view: the images and how they are read and measured. The training images of the sources are used, and their
            held-out images when minimum widths are measured. The optimiser's rate, steps and schedule are not used.
        pixel_loss: the loss of one head.
        log: called by the training loop and the pruning schedule.

    Raises:
        InputError: when nothing can be pruned or the goal cannot be reached; for a criterion that compares domains and
            gets only one, or that needs data and gets none; for a stop rule on source or unseen domains; or in a
            parallel run.
    """
    surveyed, schedule, work, target = _prepared(network, choice, view, pixel_loss)
    rounds: list[tuple[int, dict[str, float]]] = []
    work = replace(work, log=_noted(rounds, log))
    stop_images, run = safeguards.checked(choice, network, view), view.settings.run
    if view.memory is None:
        network.to(pick(run.device))
    sweep = None
    if choice.floors:
        sweep = safeguards.measure_sensitivity(work, choice.floors, view)
        limits = replace(work.limits, floors=sweep.floors(choice.floors.tolerance))
        target = target_of(network, work.units, choice, limits, _size(view), run)
        work = replace(work, limits=limits, goal=target.goal)
    if stop_images:
        work = replace(work, good=safeguards.stop_rule(work, choice, stop_images, view))
    if schedule.trains:
        with _training(network, choice, view, log) as tune:
            pruned = schedule.run(replace(work, tune=tune, batches=_scored(network, choice, view)))
    else:
        pruned = schedule.run(_fed(work, choice, view))
    safeguards.reestimate_norms(network, choice, view)
    if view.memory is None:
        network.to("cpu")
    narrow = {network.known_as(name): why for name, why in work.limits.unprunable(work.units).items()}
    kinds = {unit.name: unit.kind for unit in work.units}
    return Surgery(pruned, {**surveyed.blocked, **narrow}, target.outcome(pruned.removed), sweep, kinds, rounds)


def _noted(rounds: list[tuple[int, dict[str, float]]], log: Log | None) -> Log:
    """A log that keeps what it is given in ``rounds``, and passes it on."""

    def noted(step: int, values: dict[str, float]) -> None:
        rounds.append((step, dict(values)))
        if log is not None:
            log(step, values)

    return noted


def _fed(work: Work, choice: Prune, view: DataView) -> Work:
    """``work`` of a schedule that does not train, with batches if its criterion needs data; sets the network's mode."""
    if view.memory is None:
        work.network.train()
    return replace(work, batches=_scored(work.network, choice, view)) if work.criterion.needs_data else work


def _scored(network: Network, choice: Prune, view: DataView) -> Iterable[Batch]:
    """The batches on which the criterion is scored apart from training, on the device; read when they are asked for."""
    asked = choice.scoring
    if asked is None:
        return view.batches(network, "score")
    batches = view.batches(network, "scoring", view.parts.val if asked.part == "source-val" else None)
    if not asked.style:
        return batches
    return restyled(batches, load_dsp(asked.style), asked.copies, key(view.settings.run.seed, "scoring"))


def prune_module(
    module: Module,
    example: Tensor,
    choice: Prune,
    *,
    data: Batches | None = None,
    loss: Method | None = None,
    run: RunSection | None = None,
) -> tuple[Module, Surgery]:
    """A smaller copy of any module, in evaluation mode, and the result of pruning; ``module`` does not change.

    The copy has the attribute ``hardy_plan``: `hardy.pruning.remove.replay` cuts a new module to the same shape by it.

    Args:
        module: its forward pass takes one tensor. It is scored in its current mode.
        example: an input such as noise, of a size that the module accepts.
        choice: criterion, ratio, kinds of units and limits; the pruning schedule must be one that does not train.
        data: for a criterion that reads gradients, and for batch-norm re-estimation from its first
            ``choice.reestimate`` batches after the cut.
        loss: the loss of the logits; cross entropy by default.
        run: has the seed of all random draws.

    Raises:
        InputError: when the module does not run on ``example``, and what `prune` raises.
    """
    check_finite(module)
    batches = MemoryBatches(data)
    network = Adapted(duplicate(module), example)
    view = DataView(Split((), (), ()), Settings(run=run or RunSection()), batches)
    surgery = prune(network, choice, view, pixel_loss=_loss_of(network, loss))
    small = network.module.eval()
    small.hardy_plan = {network.known_as(name): sides for name, sides in surgery.pruned.plan.items()}  # type: ignore[assignment]
    return cast(Module, small), surgery


def _loss_of(network: Adapted, loss: Method | None) -> PixelLoss:
    """The loss for as many classes as the module has logits."""
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


def sensitivity(network: Network, choice: Prune, view: DataView, *, pixel_loss: PixelLoss) -> Sweep:
    """The sensitivity sweep for the ``floors`` of ``choice``, or for the default ones, on a copy of ``network``.

    Raises:
        InputError: what `prune` raises before its first step.
    """
    trial = deepcopy(network)
    work = _prepared(trial, choice, view, pixel_loss)[2]
    trial.to(pick(view.settings.run.device))
    return safeguards.measure_sensitivity(work, choice.floors or Floors(), view)


def to_score(network: Network, choice: Prune, view: DataView, *, pixel_loss: PixelLoss) -> Work:
    """What `hardy.pruning.scoring.score_without_training` scores, with the batches that `prune` would score.

    The schedule of ``choice`` is one that does not train. ``network`` is moved to its device, in training mode.

    Raises:
        InputError: what `prune` raises before its first step.
    """
    work = _prepared(network, choice, view, pixel_loss)[2]
    if view.memory is None:
        network.to(pick(view.settings.run.device))
    return _fed(work, choice, view)


def rehearse(network: Network, choice: Prune, view: DataView, *, pixel_loss: PixelLoss) -> None:
    """Raise what `prune` would raise before its first step; it works on a copy, before the network is trained."""
    _prepared(deepcopy(network), choice, view, pixel_loss)
    safeguards.checked(choice, network, view)


def _size(view: DataView) -> tuple[int, int]:
    return view.settings.data.size or view.settings.data.crop


def _prepared(
    network: Network, choice: Prune, view: DataView, pixel_loss: PixelLoss
) -> tuple[Survey, Schedule, Work, Target]:
    """The survey of ``network``, the pruning schedule, the work and the target, after all checks of the arguments."""
    surveyed = survey(network)
    wanted = [unit for unit in surveyed.units if unit.kind in choice.kinds]
    units, kept = left_alone(network, wanted, choice.keep)
    surveyed = replace(surveyed, blocked={**surveyed.blocked, **kept})
    if not units:
        have = ", ".join(sorted({unit.kind for unit in surveyed.units})) if not kept else ""
        reasons = "; ".join(f"{name}: {why}" for name, why in list((kept or surveyed.blocked).items())[:3])
        why = f"its units are {have}" if have else reasons or "it has no convolution"
        raise InputError(f"nothing of {type(network.get_submodule(network.part)).__name__} can be pruned: {why}")
    run, asked = view.settings.run, choice.scoring
    scored_by = per_image(pixel_loss) if asked and asked.risk == "image" else pixel_loss
    with seeded(run.seed, "criterion"):
        name, options = choice.criterion.name, choice.criterion.options
        criterion: Criterion = CRITERIA.build(
            name, {"network": network, "units": units, "pixel_loss": scored_by}, **options
        )
    units = list(criterion.units)
    schedule: Schedule = SCHEDULES.build(choice.schedule.name, **choice.schedule.options)
    _check(criterion, schedule, choice, view)
    limits = limits_of(choice, run)
    target = target_of(network, units, choice, limits, _size(view), run)
    apart = Apart(pixel_loss, asked.batches, asked.norms == "running") if asked else None
    work = Work(network, criterion, units, target.goal, limits, apart=apart)
    schedule.check(work)
    return surveyed, schedule, work, target


def _check(criterion: Criterion, schedule: Schedule, choice: Prune, view: DataView) -> None:
    name, parts, optim = choice.criterion.name, view.parts, view.settings.optim
    if choice.scoring:
        _check_scoring(criterion, choice, view)
    if view.memory is not None:
        if criterion.needs_data and not view.memory.given:
            raise InputError(f"criterion {name!r} needs data: give data=[(images, labels), ...], or use l2")
        return
    if not parts.train and (criterion.needs_data or schedule.trains or choice.recovers):
        kinds: dict[str, type[Criterion]] = {each: CRITERIA.get(each) for each in CRITERIA}
        free = ", ".join(each for each, kind in kinds.items() if not kind.needs_data)
        raise InputError(
            f"prune: {name} with the {choice.schedule.name} schedule and {choice.recovery or choice.total_steps or 0} "
            f"steps of recovery needs data; name data.sources, or prune one_shot without recovery by one of: {free}"
        )
    if criterion.needs_data and len(parts.train) < criterion.needs_domains:
        raise InputError(
            f"prune.criterion: {name} compares domains and data.sources names {len(parts.train)}: the variance of one "
            f"risk is 0; name {criterion.needs_domains} or more, or use taylor"
        )
    if criterion.needs_data and optim.batch // optim.accumulate < criterion.needs_domains:
        shared = f" in {optim.accumulate} parts (optim.accumulate)" if optim.accumulate > 1 else ""
        raise InputError(f"optim.batch: {optim.batch} images{shared} cannot hold {criterion.needs_domains} domains")


def _check_scoring(criterion: Criterion, choice: Prune, view: DataView) -> None:
    asked, name = choice.scoring, choice.criterion.name
    assert asked is not None, "the recipe has the section"
    if not criterion.needs_data or criterion.sparse:
        why = "its scores are scales that training shrinks" if criterion.sparse else "it reads weights only"
        raise InputError(f"prune.scoring: {name} is not scored on images: {why}; leave prune.scoring out")
    if asked.part == "source-val" and not view.parts.val:
        raise InputError("prune.scoring.part: source-val are held-out images of the sources; name data.sources")
    if asked.style:
        load_dsp(asked.style)


@contextmanager
def _training(network: Network, choice: Prune, view: DataView, log: Log | None) -> Iterator[Tune]:
    """Inside the block: a function that fine-tunes for some steps at the constant learning rate of ``choice``."""
    algorithm = _Watched(network)
    settings = view.settings
    steady = settings.optim.model_copy(
        update={"lr": choice.lr, "steps": _ENDLESS, "schedule": "constant", "warm_up": 0, "ema": None}
    )
    batches = protocol.training(view.parts.train, network.label_space, settings, stage="score")
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
