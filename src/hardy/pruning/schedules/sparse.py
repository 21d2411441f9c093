"""Sparse training: a penalty shrinks the channels' scales while the network learns; the smallest are removed.

Each step adds ``beta * penalty`` of the criterion (``sum w |scale|``) to the loss. beta is steered: where the share of
scales under the threshold t lags behind a straight line to the ratio it grows by a quarter, where it is ahead it
shrinks by as much. When enough scales are under t, or the steps are over, the smallest are removed, the rest settles,
and the whole may be repeated with equal parts of the ratio. A stop rule is asked at each removal, and ends the whole
where it lets less go.

Source: Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV 2024,
doi 10.1007/s11263-024-02194-5 (joint training, threshold, prune iterations); Liu, Li, Shen, Huang, Yan and Zhang,
"Learning efficient convolutional networks through network slimming", ICCV 2017 (the penalty on gamma).
"""

import logging
from collections.abc import Callable, Mapping

from torch import Tensor

from hardy.errors import InputError
from hardy.pruning.goal import choose, fewest, joined
from hardy.pruning.mask import prepare_mask
from hardy.pruning.schedules._allowed import allowed
from hardy.pruning.schedules.base import Pruned, Schedule, Work, remove_and_check, terms_of
from hardy.pruning.select import Removed, select
from hardy.types import Batch, Terms

__all__ = ["Sparse"]

logger = logging.getLogger("hardy")

_QUARTER = 1.25


class Sparse(Schedule):
    """Train with a sparsity penalty, then remove the smallest scales.

    Args:
        steps: steps of sparse training of each iteration, at most; it ends early when enough scales are under t.
        beta: strength of the penalty at the start.
        adapt: steps between corrections of beta; 0 leaves it as it is.
        threshold: t; a scale below counts as pruned.
        relative: t is a multiple of each unit's mean scale at the start, not an absolute size.
        fill: when fewer scales than the goal needs are under t, remove the next smallest too.
        iterations: how many times sparse training and removal are gone through, with equal parts of the goal.
        settle: steps without penalty after each removal but the last (the recovery follows that one).

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
                f"schedule: steps {steps} and iterations {iterations} must be at least 1, "
                f"adapt {adapt} and settle {settle} at least 0"
            )
        if settle and iterations == 1:
            raise InputError(f"schedule: settle {settle} has no effect in one iteration; give iterations, or recovery")
        if beta < 0 or threshold <= 0:
            raise InputError(f"schedule: beta {beta} must be 0 or more and threshold {threshold} more than 0")
        self.steps, self.beta, self.adapt = steps, beta, adapt
        self.threshold, self.relative, self.fill = threshold, relative, fill
        self.iterations, self.settle = iterations, settle

    def check(self, work: Work) -> None:
        """See `Schedule.check`: the criterion must have a penalty."""
        if not work.criterion.sparse:
            raise InputError(
                f"schedule: sparse training needs a criterion with a penalty, such as npdg or slimming; "
                f"{type(work.criterion).__name__} has none: use another schedule for it"
            )

    def run(self, work: Work) -> Pruned:
        """See `Schedule.run`."""
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
            most = [] if last else [part]  # the last removal ends where the goal is met, the others at their part
            stopped = state.remove(min(most if self.fill else [*most, state.under()], default=None))
            work.report(state.steps, state.dead, beta=state.beta)
            if stopped:
                break
            if number < self.iterations and self.settle:
                work.tune(self.settle, terms_of(work), work.criterion.collect, state.mask_dead())
                state.steps += self.settle
        if not any(state.dead.values()):
            raise InputError(
                f"schedule: no scale is under {self.threshold} after {state.steps} steps; "
                "raise beta or steps, or set fill"
            )
        scores = state.scores()  # factors of their own are gone once they are released
        work.criterion.release()
        return remove_and_check(work, state.dead, scores, self.iterations, state.steps)

    def _shrink(self, work: Work, state: "_State", part: int, last: bool) -> None:
        """Train with the penalty until ``part`` more scales are under the threshold and, the last time, the goal is met
        without them."""
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
            if under >= part and (not last or state.enough(under)):
                break
            if self.adapt:
                line = start + (part - start) * made / self.steps
                state.beta *= _QUARTER if under < line else 1 / _QUARTER


class _State:
    """What is dead, how strong the penalty is, and how many steps were made.

    Args:
        work: what is pruned.
        threshold: t.
        units: what one unit of a scale is, by the unit's name: 1, or the unit's mean scale at the start.
        beta: strength of the penalty at the start.
    """

    def __init__(self, work: Work, threshold: float, units: Mapping[str, float], beta: float) -> None:
        self._work, self._threshold, self._units = work, threshold, units
        self.beta = beta
        self.dead: Removed = {}
        self.steps = 0

    def scores(self) -> dict[str, Tensor]:
        """The scales in multiples of their unit."""
        return {name: scale / self._units[name] for name, scale in self._work.criterion.scores().items()}

    def under(self) -> int:
        """How many living channels have a scale under the threshold."""
        under = 0
        for name, scale in self.scores().items():
            low = scale < self._threshold
            low[list(self.dead.get(name, ()))] = False
            under += int(low.sum())
        return under

    def needed(self) -> int:
        """How many more channels the goal needs as far as it knows, were the smallest to go now."""
        work = self._work
        return sum(map(len, fewest(self.scores(), work.units, work.goal, self.dead, work.limits).values()))

    def enough(self, count: int) -> bool:
        """Whether as many channels as the goal needs are among the ``count`` smallest, as far as the limits let go."""
        work = self._work
        chosen = select(self.scores(), work.units, count, self.dead, work.limits)
        return sum(map(len, chosen.values())) >= self.needed()

    def remove(self, count: int | None) -> bool:
        """Let the ``count`` smallest die, or fewer if the goal needs fewer (as many as it needs where ``count`` is
        None); True where the stop rule let fewer go."""
        work, scores = self._work, self.scores()
        chosen = choose(scores, work.units, work.goal, self.dead, work.limits, count)
        borne = allowed(work, scores, self.dead, chosen)
        self.dead = joined(self.dead, borne)
        return borne != chosen

    def mask_dead(self) -> Callable[[], None]:
        """Mask the dead channels, and return the function that does so again after each step."""
        zero = prepare_mask(self._work.network, self._work.units, self.dead)
        zero()
        return zero


def _penalised(work: Work, plain: Callable[[Batch], Terms], strength: float) -> Callable[[Batch], Terms]:
    """The terms of ``plain`` and the penalty with its strength."""

    def terms(batch: Batch) -> Terms:
        found = plain(batch)
        penalty = work.criterion.penalty()
        assert penalty is not None, "a sparse criterion has a penalty"
        return {**found, "sparsity": strength * penalty}

    return terms
