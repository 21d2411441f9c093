"""Goals: how many channels still go, and that no more go than the goal needs."""

import pytest
import torch

from hardy.errors import InputError
from hardy.pruning.goal import Ratio, choose, joined
from hardy.pruning.select import Limits
from hardy.pruning.units import Unit

UNITS = (Unit("a", 6, ()), Unit("b", 4, ()))
SCORES = {"a": torch.tensor([5.0, 1.0, 4.0, 2.0, 6.0, 9.0]), "b": torch.tensor([3.0, 8.0, 7.0, 10.0])}
LIMITS = Limits(min_width=1)


class Weighted:
    """A cost: 1 for a channel of a, 10 for one of b."""

    def __init__(self, least):
        self.least = least

    def most(self, dead):
        return 8 - sum(map(len, dead.values()))

    def met(self, dead):
        return len(dead.get("a", ())) + 10 * len(dead.get("b", ())) >= self.least

    def confirm(self, dead):
        return True


def test_a_ratio_counts():
    goal = Ratio(UNITS, 0.5, LIMITS)
    assert goal.most({"a": [1]}) == 4
    assert not goal.met({"a": [1, 2]})
    assert goal.met({"a": [1, 2, 3], "b": [0, 1]})
    assert choose(SCORES, UNITS, goal, {}, LIMITS) == {"a": [0, 1, 2, 3], "b": [0]}
    assert choose(SCORES, UNITS, goal, {"a": [1, 3]}, LIMITS, at_most=2) == {"a": [2], "b": [0]}
    with pytest.raises(InputError, match="must be between 0 and 1"):
        Ratio(UNITS, 1.5, LIMITS)


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (1, {"a": [1]}),
        (2, {"a": [1, 3]}),
        (3, {"a": [1, 3], "b": [0]}),
        (12, {"a": [1, 3], "b": [0]}),
        (13, {"a": [1, 2, 3], "b": [0]}),
    ],
)
def test_no_more_go_than_a_cost_needs(least, expected):
    assert choose(SCORES, UNITS, Weighted(least), {}, LIMITS) == expected


def test_a_goal_out_of_reach_takes_all_that_may_go():
    taken = choose(SCORES, UNITS, Weighted(100), {}, LIMITS)
    assert {name: len(channels) for name, channels in taken.items()} == {"a": 5, "b": 3}


def test_joined():
    assert joined({"a": [3]}, {"a": [1], "b": [0]}) == {"a": [1, 3], "b": [0]}
