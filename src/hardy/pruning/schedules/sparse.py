"""Sparse training: a penalty shrinks the scales of the channels during training; the smallest are removed.

Each step adds ``beta * penalty`` of the criterion (``sum w |scale|``) to the loss. beta is adapted: it is multiplied by
1.25 if the number of scales under the threshold t is below a straight line to the goal, and divided by 1.25 if it is
above. When enough scales are under t, or all steps are made, the channels with the smallest scales are removed and the
network trains without the penalty. This can be repeated with equal parts of the goal. A stop rule is checked at each
removal and ends the schedule if it does not allow the complete removal.

Source: Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV 2024,
doi 10.1007/s11263-024-02194-5 (joint training, threshold, prune iterations); Liu, Li, Shen, Huang, Yan and Zhang,
"Learning efficient convolutional networks through network slimming", ICCV 2017 (the penalty on gamma).
"""

import logging
import math
from collections.abc import Callable, Mapping

from torch import Tensor

from hardy.errors import InputError
from hardy.pruning.goal import choose, fewest, joined
from hardy.pruning.mask import prepare_mask
from hardy.pruning.schedules._allowed import allowed
from hardy.pruning.schedules.base import Pruned, Schedule, Work, remove_and_check, terms_of
from hardy.pruning.select import Removed, blocks
from hardy.types import Batch, Terms

__all__ = ["Sparse"]

logger = logging.getLogger("hardy")

_FACTOR = 1.25


class Sparse(Schedule):
    """Train with a sparsity penalty, then remove the smallest scales.

    Args:
        steps: the largest number of steps of an iteration. Every ``adapt`` steps it is checked whether enough scales
            are under t, and the iteration then ends early; with ``adapt`` 0 all steps are made.
        beta: initial strength of the penalty.
        adapt: steps between changes of beta; 0 keeps it constant.
        threshold: t; a channel whose scale is below it can be removed.
        relative: t is a multiple of the initial mean scale of each unit, not an absolute size.
        fill: if fewer scales than the goal needs are under t, also remove the next smallest.
        iterations: number of rounds of sparse training and removal, with equal parts of the goal.
        settle: steps without penalty after each removal except the last, after which the recovery trains.

    Raises:
        InputError: for a value out of range.
    """

    def __init__(
        self,
        *,
        steps: int = 20_000,
        beta: float = 1e-4,
        adapt: int = 500,
        threshold: float = 0.1,
        relative: bool = False,
        fill: bool = False,
        iterations: int = 1,
        settle: int = 0,
    ) -> None:
        if steps < 1 or iterations < 1 or adapt < 0 or settle < 0:
            raise InputError(
                f"prune.schedule: steps {steps} and iterations {iterations} must be at least 1, "
                f"adapt {adapt} and settle {settle} at least 0"
            )
        if settle and iterations == 1:
            raise InputError(
                f"prune.schedule: settle {settle} has no effect in one iteration; set iterations or recovery"
            )
        if beta < 0 or threshold <= 0:
            raise InputError(f"prune.schedule: beta {beta} must be at least 0 and threshold {threshold} above 0")
        self.steps, self.beta, self.adapt = steps, beta, adapt
        self.threshold, self.relative, self.fill = threshold, relative, fill
        self.iterations, self.settle = iterations, settle

    def check(self, work: Work) -> None:
        """See `Schedule.check`.

        Raises:
            InputError: for a criterion without a penalty.
        """
        if not work.criterion.sparse:
            raise InputError(
                f"prune.schedule: sparse training needs a criterion with a penalty, such as npdg or slimming; "
                f"{type(work.criterion).__name__} has none: use another pruning schedule"
            )

    def run(self, work: Work) -> Pruned:
        """See `Schedule.run`.

        Raises:
            InputError: for a criterion without a penalty, or if no channel can be removed.
        """
        assert work.tune is not None, "this schedule trains"
        self.check(work)
        means = {name: float(scale.mean()) or 1.0 for name, scale in work.criterion.scores().items()}
        state = _State(work, self.threshold, means if self.relative else dict.fromkeys(means, 1.0), self.beta)
        already = state.under() / sum(unit.size for unit in work.units)
        logger.info("prune: %.1f %% of the scales are under the threshold before sparse training", 100 * already)
        for number in range(1, self.iterations + 1):
            last = number == self.iterations
            part = -(-state.needed() // (self.iterations + 1 - number))
            self._shrink(work, state, part, last)
            stopped = state.remove(None if last else part, fill=self.fill)  # the last removal meets the goal
            work.report(state.steps, state.dead, beta=state.beta)
            if stopped:
                break
            if number < self.iterations and self.settle:
                work.tune(self.settle, terms_of(work), work.criterion.collect, state.mask_dead())
                state.steps += self.settle
        if not any(state.dead.values()):
            raise InputError(
                f"prune.schedule: no block of channels is under {self.threshold} after {state.steps} steps; "
                "raise beta or steps, or set fill"
            )
        return remove_and_check(work, state.dead, state.scores(), self.iterations, state.steps)

    def _shrink(self, work: Work, state: "_State", part: int, last: bool) -> None:
        """Train with the penalty until ``part`` more scales are under the threshold.

        In the last iteration the removal of these scales must also meet the goal.
        """
        assert work.tune is not None
        plain, zero = terms_of(work), state.mask_dead()
        start, made = state.under(), 0
        while made < self.steps:
            work.criterion.strength = state.beta
            steps = min(self.adapt or self.steps, self.steps - made)
            work.tune(steps, _penalised(work, plain, state.beta), work.criterion.collect, zero)
            made += steps
            state.steps += steps
            under = state.under()
            work.report(state.steps, state.dead, beta=state.beta, under=float(under))
            if state.removable() >= (state.needed() if last else part):
                break
            if self.adapt:
                line = start + (part - start) * made / self.steps
                state.beta *= _FACTOR if under < line else 1 / _FACTOR


class _State:
    """The removed channels, the strength of the penalty, and the number of steps made.

    Args:
        work: the work of the schedule.
        threshold: t.
        references: the unit's name -> the divisor of its scales: 1, or their initial mean.
        beta: initial strength of the penalty.
    """

    def __init__(self, work: Work, threshold: float, references: Mapping[str, float], beta: float) -> None:
        self._work, self._threshold, self._references = work, threshold, references
        self.beta = beta
        self.dead: Removed = {}
        self.steps = 0

    def scores(self) -> dict[str, Tensor]:
        """The scales divided by their references."""
        return {name: scale / self._references[name] for name, scale in self._work.criterion.scores().items()}

    def under(self) -> int:
        """The number of channels not yet removed that have a scale under the threshold."""
        under = 0
        for name, scale in self.scores().items():
            low = scale < self._threshold
            low[list(self.dead.get(name, ()))] = False
            under += int(low.sum())
        return under

    def needed(self) -> int:
        """The number of channels to remove now to reach the goal, by its current prediction."""
        work = self._work
        return sum(map(len, fewest(self.scores(), work.units, work.goal, self.dead, work.limits).values()))

    def removable(self) -> int:
        """The number of channels in blocks of which all scales are under the threshold."""
        return sum(map(len, self._under_blocks(self._under_alone(self.scores())).values()))

    def remove(self, count: int | None, *, fill: bool) -> bool:
        """Remove the ``count`` smallest channels, or fewer if the goal needs fewer; None: as many as the goal needs.

        Without ``fill`` only blocks of which all scales are under the threshold are removed. Returns True if the stop
        rule allowed only a part.
        """
        work, scores = self._work, self.scores()
        seen = scores if fill else self._under_alone(scores)
        chosen = choose(seen, work.units, work.goal, self.dead, work.limits, count)
        if not fill:
            under = self._under_blocks(seen)
            kept = {name: sorted(under[name].intersection(channels)) for name, channels in chosen.items()}
            chosen = {name: channels for name, channels in kept.items() if channels}
        allowed_now = allowed(work, scores, self.dead, chosen)
        self.dead = joined(self.dead, allowed_now)
        return allowed_now != chosen

    def _under_alone(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``scores`` with infinity in place of those that are not under the threshold, so that they come last."""
        return {name: scale.where(scale < self._threshold, math.inf) for name, scale in scores.items()}

    def _under_blocks(self, scores: Mapping[str, Tensor]) -> dict[str, set[int]]:
        """For each unit the channels in the blocks of `_under_alone` that can still be removed and hold no infinity."""
        work = self._work
        found: dict[str, set[int]] = {unit.name: set() for unit in work.units}
        for score, place, _, channels in blocks(scores, work.units, self.dead, work.limits):
            if score < math.inf:
                found[work.units[place].name].update(channels)
        return found

    def mask_dead(self) -> Callable[[], None]:
        """Mask the removed channels, and return a function that masks them again after each step."""
        zero = prepare_mask(self._work.network, self._work.units, self.dead)
        zero()
        return zero


def _penalised(work: Work, plain: Callable[[Batch], Terms], strength: float) -> Callable[[Batch], Terms]:
    """The terms of ``plain`` and the penalty times its ``strength``."""

    def terms(batch: Batch) -> Terms:
        found = plain(batch)
        penalty = work.criterion.penalty()
        assert penalty is not None, "a sparse criterion has a penalty"
        return {**found, "sparsity": strength * penalty}

    return terms
