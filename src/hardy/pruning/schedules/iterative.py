"""Scores, masks and trains in turns: every 30 batches at most 100 more channels are masked permanently.

The mean score over the batches of a round enters a moving average (0.9), and the lowest channels are masked. When the
goal is reached, the masked channels are cut out. A stop rule is checked before each mask; if it fails, the state after
the last mask is restored and cut.

Source: the loop of Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning",
CVPR 2019, with the numbers of Cai, Li and Kot, arXiv:2210.13810.
"""

from collections.abc import Mapping

from torch import Tensor

from hardy.errors import InputError
from hardy.pruning.goal import choose, joined
from hardy.pruning.mask import mask, prepare_mask
from hardy.pruning.schedules._allowed import refuse_all
from hardy.pruning.schedules.base import Pruned, Schedule, Work, remove_and_check
from hardy.pruning.scoring import train_and_score
from hardy.pruning.select import Removed

__all__ = ["Iterative"]


class Iterative(Schedule):
    """Prune while the network is trained.

    Args:
        every: steps between rounds.
        per_round: the largest number of channels masked in a round. With ``scope: layer`` it is what a round adds to
            the planned number: a layer loses a block as soon as its share of that number allows it.
        momentum: momentum of the moving average of the scores, in [0, 1); the average starts at the first mean.

    Raises:
        InputError: for an ``every`` below 1 or a ``momentum`` outside [0, 1).
    """

    def __init__(self, *, every: int = 30, per_round: int = 100, momentum: float = 0.9) -> None:
        if every < 1 or not 0 <= momentum < 1:
            raise InputError(f"prune.schedule: every {every} must be at least 1 and momentum {momentum} in [0, 1)")
        self.every, self.per_round, self.momentum = every, per_round, momentum

    def check(self, work: Work) -> None:
        """See `Schedule.check`.

        Raises:
            InputError: if one block of ``round_to`` channels does not fit into a round.
        """
        if self.per_round < work.limits.round_to:
            raise InputError(
                f"per_round {self.per_round} allows no removal: it must be at least round_to {work.limits.round_to}"
            )

    def run(self, work: Work) -> Pruned:
        """See `Schedule.run`."""
        assert work.tune is not None, "this schedule trains"
        self.check(work)
        dead: Removed = {}
        average: dict[str, Tensor] = {}
        rounds = steps = planned = 0
        last: dict[str, Tensor] = {}
        while not work.goal.met(dead):
            scores, took = train_and_score(work, self.every, prepare_mask(work.network, work.units, dead))
            average, readings = self._smoothed(average, scores), work.readings(dead)
            steps += took
            gone = sum(map(len, dead.values()))
            planned = planned + self.per_round if work.limits.scope == "layer" else gone + self.per_round
            chosen = choose(average, work.units, work.goal, dead, work.limits, planned - gone)
            if not chosen:
                if planned - gone < work.goal.most(dead):
                    continue  # the share of no layer has grown by a block yet
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
            work.report(steps, dead, **readings)
        return remove_and_check(work, dead, average, rounds, steps)

    def _smoothed(self, average: Mapping[str, Tensor], mean: dict[str, Tensor]) -> dict[str, Tensor]:
        """The moving average after ``mean``; it starts at the first mean."""
        if not average:
            return mean
        return {name: self.momentum * average[name] + (1 - self.momentum) * value for name, value in mean.items()}
