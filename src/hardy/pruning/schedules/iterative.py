"""Scores, masks and trains in turn: every 30 batches at most 100 more channels are masked and stay dead.

The mean score of the batches of a round enters a moving average (0.9); the lowest channels are masked; when the goal
is reached they are cut out. A stop rule is asked before each mask; where it says no, the network goes back to what it
was after the last mask, and that is cut.

Source: the loop of Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning",
CVPR 2019, with the numbers of Cai, Li and Kot, arXiv:2210.13810.
"""

from collections.abc import Mapping

from torch import Tensor

from hardy.errors import InputError
from hardy.pruning.goal import choose, joined
from hardy.pruning.mask import mask, prepare_mask
from hardy.pruning.schedules._allowed import refuse_all
from hardy.pruning.schedules.base import Pruned, Schedule, Work, remove_and_check, terms_of
from hardy.pruning.select import Removed

__all__ = ["Iterative"]


class Iterative(Schedule):
    """Prune while the network is trained.

    Args:
        every: steps between rounds.
        per_round: the most channels masked in a round.
        momentum: weight of the past in the scores' moving average, in [0, 1); the first mean starts it.

    Raises:
        InputError: for an ``every`` below 1 or a ``momentum`` outside [0, 1).
    """

    def __init__(self, *, every: int = 30, per_round: int = 100, momentum: float = 0.9) -> None:
        if every < 1 or not 0 <= momentum < 1:
            raise InputError(f"schedule: every {every} must be at least 1 and momentum {momentum} lie in [0, 1)")
        self.every, self.per_round, self.momentum = every, per_round, momentum

    def check(self, work: Work) -> None:
        """See `Schedule.check`: a round must be able to take one block."""
        if self.per_round < work.limits.round_to:
            raise InputError(
                f"per_round {self.per_round} lets nothing go: it must be at least round_to {work.limits.round_to}"
            )

    def run(self, work: Work) -> Pruned:
        """See `Schedule.run`."""
        assert work.tune is not None, "this schedule trains"
        self.check(work)
        terms = terms_of(work)
        dead: Removed = {}
        average: dict[str, Tensor] = {}
        rounds = 0
        last: dict[str, Tensor] = {}
        while not work.goal.met(dead):
            work.criterion.reset()
            work.tune(self.every, terms, work.criterion.collect, prepare_mask(work.network, work.units, dead))
            average = self._smoothed(average, work.criterion.scores())
            chosen = choose(average, work.units, work.goal, dead, work.limits, self.per_round)
            if not chosen:
                break
            if work.good is not None and not work.good(joined(dead, chosen)):
                if not dead:
                    refuse_all()
                work.network.load_state_dict(last)
                break
            dead = joined(dead, chosen)
            mask(work.network, work.units, dead)
            if work.good is not None:
                last = {name: value.clone() for name, value in work.network.state_dict().items()}
            rounds += 1
            work.report(rounds * self.every, dead)
        return remove_and_check(work, dead, average, rounds, rounds * self.every)

    def _smoothed(self, average: Mapping[str, Tensor], mean: dict[str, Tensor]) -> dict[str, Tensor]:
        """The moving average after ``mean``; the first mean starts it."""
        if not average:
            return mean
        return {name: self.momentum * average[name] + (1 - self.momentum) * value for name, value in mean.items()}
