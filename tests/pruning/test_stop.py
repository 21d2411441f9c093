"""The stop rule in every schedule: what goes is what it bears, and what is cut is a state that it bore."""

import copy

import pytest
import torch
from loops import trainer

from hardy.errors import InputError
from hardy.pruning.criteria.l2 import L2
from hardy.pruning.criteria.slimming import Slimming
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.goal import Ratio
from hardy.pruning.schedules.base import Work
from hardy.pruning.schedules.iterative import Iterative
from hardy.pruning.schedules.one_shot import OneShot
from hardy.pruning.schedules.soft import Soft
from hardy.pruning.schedules.sparse import Sparse
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units


def count(removed):
    return sum(map(len, removed.values()))


class Rule:
    """A stop rule by a script or a limit; notes what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, removed):
        self.asked.append(count(removed))
        return self.answer(removed)


def work_on(network, criterion, ratio, good, pixel_loss, batches=None, **limits):
    units = find_units(network)
    limits = Limits(min_width=2, **limits)
    goal = Ratio(units, ratio, limits)
    tune = None if batches is None else trainer(network, batches)
    return Work(network, criterion(network, units, pixel_loss), units, goal, limits, tune=tune, good=good)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 17, 40, 41])
def test_one_shot_removes_the_most_that_is_borne(toy, pixel_loss, most):
    """The goal is 41 channels; a limit on their number is found by halving, and the lowest scores go."""
    total = sum(unit.size for unit in find_units(toy))
    wanted = OneShot().run(work_on(copy.deepcopy(toy), L2, most / total, None, pixel_loss)).removed
    rule = Rule(lambda removed: count(removed) <= most)
    done = OneShot().run(work_on(toy, L2, 41 / total, rule, pixel_loss))
    assert count(done.removed) == most
    assert done.removed == wanted
    assert rule.asked[0] == 41
    assert len(rule.asked) <= 7
    assert len(set(rule.asked)) == len(rule.asked)


def test_one_shot_with_rounded_widths_asks_for_no_choice_twice(toy, pixel_loss):
    rule = Rule(lambda removed: count(removed) <= 18)
    done = OneShot().run(work_on(toy, L2, 0.6, rule, pixel_loss, round_to=4))
    assert 18 - 4 < count(done.removed) <= 18
    assert len(set(rule.asked)) == len(rule.asked)
    assert all(after == before or after % 4 == 0 for before, after in done.widths.values())


@pytest.mark.parametrize("schedule", [OneShot(), Iterative(every=1, per_round=10), Soft(every=1, rounds=1)])
def test_where_nothing_can_go_it_says_so(toy, pixel_loss, draw_batch, schedule):
    before = find_units(toy)
    work = work_on(toy, L2, 0.4, lambda removed: False, pixel_loss, [draw_batch([0, 1])])
    with pytest.raises(InputError, match=r"prune\.stop: any removal lowers the score by more than prune\.stop\.drop"):
        schedule.run(work)
    assert find_units(toy) == before


@pytest.mark.slow
def test_iterative_goes_back_to_the_last_state_that_was_borne(toy, draw_batch, pixel_loss):
    """The third round is refused: the network is, to the bit, that of a run whose goal is met after two."""
    batches = [draw_batch([0, 1, 2]), draw_batch([2, 0, 1], 1)]
    total = sum(unit.size for unit in find_units(toy))
    twin = copy.deepcopy(toy)
    two = Iterative(every=2, per_round=8).run(work_on(twin, Taylor, 16 / total, None, pixel_loss, batches))
    script = iter([True, True, False])
    rule = Rule(lambda removed: next(script))
    done = Iterative(every=2, per_round=8).run(work_on(toy, Taylor, 30 / total, rule, pixel_loss, batches))
    assert rule.asked == [8, 16, 24]
    assert done.rounds == two.rounds == 2
    assert done.removed == two.removed
    state = twin.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in toy.state_dict().items())


@pytest.mark.slow
def test_a_rule_that_bears_all_changes_nothing(toy, draw_batch, pixel_loss):
    batches = [draw_batch([0, 1, 2])]
    for schedule in (Iterative(every=1, per_round=9), Soft(every=1, rounds=2)):
        networks = [copy.deepcopy(toy) for _ in range(2)]
        goods = (None, Rule(lambda removed: True))
        plans = [
            schedule.run(work_on(network, L2, 0.3, good, pixel_loss, batches)).plan
            for network, good in zip(networks, goods, strict=True)
        ]
        assert plans[0] == plans[1]
        state = networks[0].state_dict()
        assert all(torch.equal(value, state[name]) for name, value in networks[1].state_dict().items())
        assert goods[1].asked


def test_soft_shrinks_its_last_choice_alone(toy, draw_batch, pixel_loss):
    total = sum(unit.size for unit in find_units(toy))
    rule = Rule(lambda removed: count(removed) <= 11)
    done = Soft(every=1, rounds=3).run(work_on(toy, L2, 30 / total, rule, pixel_loss, [draw_batch([0, 1])]))
    assert count(done.removed) == 11
    assert rule.asked[0] == 30
    lowest = {name: torch.argsort(scores, stable=True).tolist() for name, scores in done.scores.items()}
    for name, channels in done.removed.items():
        assert set(channels) <= set(lowest[name][: len(channels)])


def test_sparse_ends_where_less_goes_than_was_to(toy, draw_batch, pixel_loss):
    """Three iterations of ten channels each; after fourteen the rule says no."""
    units = [unit for unit in find_units(toy) if unit.name in ("stem", "block.expand", "mix")]
    limits = Limits(min_width=2)
    goal = Ratio(units, 30 / sum(unit.size for unit in units), limits)
    rule = Rule(lambda removed: count(removed) <= 14)
    tune = trainer(toy, [draw_batch([0, 1])])
    criterion = Slimming(toy, units, pixel_loss)
    work = Work(toy, criterion, units, goal, limits, tune=tune, good=rule)
    done = Sparse(steps=1, adapt=0, fill=True, iterations=3).run(work)
    assert count(done.removed) == 14
    assert rule.asked[:2] == [10, 20]
    assert max(rule.asked) == 20, "no third iteration"
