"""Soft pruning: zeroed filters learn on and may come back, held ones do not; the last choice is what goes."""

import pytest
import torch
from loops import trainer

from hardy.errors import InputError
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.goal import Ratio
from hardy.pruning.schedules.base import Work
from hardy.pruning.schedules.soft import Soft, zeroer
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units


class Scripted(Criterion):
    """Scores by a script."""

    needs_data = False

    def __init__(self, network, units, pixel_loss, script):
        super().__init__(network, units, pixel_loss)
        self.script = iter(script)

    def scores(self):
        low = next(self.script)
        return {
            unit.name: torch.tensor([0.0 if (unit.name, i) in low else 1.0 for i in range(unit.size)])
            for unit in self.units
        }


def run(toy, draw_batch, pixel_loss, script, **options):
    units = find_units(toy)
    seen = []

    def note():
        seen.append([float(toy.mix.weight[c].detach().abs().sum()) for c in (0, 1)])

    tune = trainer(toy, [draw_batch([0, 1])], momentum=0, after=note)
    limits = Limits(min_width=2)
    goal = Ratio(units, 1 / sum(unit.size for unit in units), limits)
    work = Work(toy, Scripted(toy, units, pixel_loss, script), units, goal, limits, tune=tune)
    return Soft(rounds=len(script), **options).run(work), seen


def test_a_zeroed_filter_grows_again_and_another_goes(toy, draw_batch, pixel_loss):
    gamma = toy.mix_norm.weight.detach().clone()
    done, seen = run(toy, draw_batch, pixel_loss, [{("mix", 0)}, {("mix", 1)}], every=2)
    assert 0 < seen[2][0] < seen[0][0], "chosen in round 1, zeroed, and grown by the step after"
    assert seen[2][1] > 0.1
    assert done.removed == {"mix": [1]}
    assert done.steps == 4
    assert gamma[0] != 0
    assert toy.mix.out_channels == 13


def test_a_held_filter_stays_at_zero_until_the_next_choice(toy, draw_batch, pixel_loss):
    _, seen = run(toy, draw_batch, pixel_loss, [{("mix", 0)}, {("mix", 1)}, {("mix", 1)}], every=2, hold=True)
    assert [row[0] == 0 for row in seen] == [False, False, True, True, False, False]
    assert seen[4][1] == seen[5][1] == 0


def test_only_the_filters_are_zeroed(toy, draw_batch, pixel_loss):
    units = find_units(toy)
    limits = Limits(min_width=2)
    work = Work(toy, Scripted(toy, units, pixel_loss, []), units, Ratio(units, 0.2, limits), limits)
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    zeroer(work, {"mix": [3]})()
    changed = {name for name, value in toy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"mix.weight"}
    assert not toy.mix.weight[3].any()


@pytest.mark.parametrize("options", [{"every": 0}, {"rounds": 0}])
def test_bad_options(options):
    with pytest.raises(InputError, match="must be at least 1"):
        Soft(**options)
