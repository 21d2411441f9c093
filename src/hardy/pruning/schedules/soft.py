"""Soft pruning: filters set to zero are trained further and may recover; only the last selection is removed.

After a fixed number of steps the lowest channels are selected from all channels, and the filters that produce them are
set to zero. Norm layers and the layers that follow keep their weights, so the zeroed filters get gradients and can
recover. With ``hold`` they stay at zero until the next selection. A stop rule is checked at the end and reduces the
last selection.

Source: He, Kang, Dong, Fu and Yang, "Soft filter pruning for accelerating deep convolutional neural networks", IJCAI
2018, algorithm 1 (criterion ``l2``, scope ``layer``); with ``hold``: He, Liu, Wang, Hu and Yang, "Filter pruning via
geometric median for deep convolutional neural networks acceleration", CVPR 2019 (criterion ``fpgm``).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from hardy.errors import InputError
from hardy.ops.axes import weight_axis
from hardy.pruning.goal import choose
from hardy.pruning.mask import filling
from hardy.pruning.schedules._allowed import allowed
from hardy.pruning.schedules.base import Pruned, Schedule, Work, remove_and_check
from hardy.pruning.scoring import train_and_score
from hardy.pruning.select import Removed

__all__ = ["Soft"]


class Soft(Schedule):
    """Set the lowest filters to zero repeatedly while all filters are trained.

    Args:
        every: steps between selections; the papers use one epoch.
        rounds: number of selections; the last one is cut out.
        hold: keep the selected filters at zero until the next selection.

    Raises:
        InputError: for ``every`` or ``rounds`` below 1.
    """

    def __init__(self, *, every: int = 100, rounds: int = 10, hold: bool = False) -> None:
        if every < 1 or rounds < 1:
            raise InputError(f"prune.schedule: every {every} and rounds {rounds} must be at least 1")
        self.every, self.rounds, self.hold = every, rounds, hold

    def run(self, work: Work) -> Pruned:
        """See `Schedule.run`."""
        assert work.tune is not None, "this schedule trains"
        chosen: Removed = {}
        scores: dict[str, Tensor] = {}
        steps = 0
        for _ in range(self.rounds):
            zero = zeroer(work, chosen)
            zero()
            scores, took = train_and_score(work, self.every, zero if self.hold else lambda: None)
            readings = work.readings({})
            steps += took
            chosen = choose(scores, work.units, work.goal, {}, work.limits)
            work.report(steps, chosen, **readings)
        chosen = allowed(work, scores, {}, chosen)
        return remove_and_check(work, chosen, scores, self.rounds, steps)


def zeroer(work: Work, chosen: Removed) -> Callable[[], None]:
    """A function that zeroes, in place, only the filters that produce the channels ``chosen``."""
    fills: list[Callable[[], object]] = []
    for unit in work.units:
        for member in unit.members:
            module = work.network.get_submodule(member.module)
            gone = [index for channel in chosen.get(unit.name, ()) for index in member.channels[channel]]
            if gone and member.side == "out" and isinstance(module, (_ConvNd, nn.Linear)):
                axis = weight_axis(module, "out")
                fills.append(filling(module, "weight", axis, torch.tensor(gone, device=module.weight.device)))

    def zero() -> None:
        with torch.no_grad():
            for fill in fills:
                fill()

    return zero
