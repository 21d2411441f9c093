"""Scores the network without training it, and removes once.

Scoring does not change weights, gradients or batch statistics. With a stop rule, bisection finds the largest removal
that the rule allows.

Source: "prune once and retrain" of Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets",
ICLR 2017, section 3.4.
"""

from hardy.errors import InputError
from hardy.pruning.goal import choose
from hardy.pruning.scales import has_factors
from hardy.pruning.schedules._allowed import allowed
from hardy.pruning.schedules.base import Pruned, Schedule, Work, remove_and_check
from hardy.pruning.scoring import score_without_training

__all__ = ["OneShot"]


class OneShot(Schedule):
    """Score the network in its current mode, and remove once.

    Args:
        batches: number of batches for scoring; a criterion that needs no data uses none.

    Raises:
        InputError: for ``batches`` below 1.
    """

    trains = False

    def __init__(self, *, batches: int = 30) -> None:
        if batches < 1:
            raise InputError(f"prune.schedule: batches {batches} must be at least 1")
        self.batches = batches

    def check(self, work: Work) -> None:
        """See `Schedule.check`.

        Raises:
            InputError: for a criterion whose scores are separate factors, which are all 1 before they are trained.
        """
        if work.criterion.sparse and has_factors(work.network):
            raise InputError(
                "prune.schedule: one_shot does not train, so the separate factors that "
                f"{type(work.criterion).__name__} scores all stay 1; use sparse"
            )

    def run(self, work: Work) -> Pruned:
        """See `Schedule.run`."""
        self.check(work)
        batches = (work.apart and work.apart.batches) or self.batches
        scores = score_without_training(work, batches)
        readings = work.readings({})
        chosen = choose(scores, work.units, work.goal, {}, work.limits)
        removed = allowed(work, scores, {}, chosen)
        steps = batches if work.criterion.needs_data else 0
        work.report(steps, removed, **readings)
        return remove_and_check(work, removed, scores, 1, steps)
