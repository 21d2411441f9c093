"""Sparse training: what the penalty does to the scales, how beta is steered, and what is removed when."""

import logging

import pytest
import torch
from loops import trainer

from hardy.errors import InputError
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.criteria.random import Random
from hardy.pruning.goal import Ratio
from hardy.pruning.scales import Scales
from hardy.pruning.schedules.base import Work
from hardy.pruning.schedules.iterative import Iterative
from hardy.pruning.schedules.one_shot import OneShot
from hardy.pruning.schedules.sparse import Sparse
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units


class Shrink(Criterion):
    """The sum of the scales, weighted for some."""

    needs_data = False
    sparse = True

    def __init__(self, network, units, pixel_loss, weights=None, separate=False):
        super().__init__(network, units, pixel_loss)
        self.scales = Scales(network, units, separate=separate)
        self.weights = weights
        self.strengths = []

    def penalty(self):
        self.strengths.append(self.strength)
        return self.scales.penalty(self.weights)

    def scores(self):
        return self.scales.sizes()

    def release(self):
        self.scales.fold()


def work(toy, draw_batch, criterion, ratio, lr=0.1, log=None, **limits):
    limits = Limits(**{"min_width": 2, **limits})
    tune = trainer(toy, [draw_batch([0, 1]), draw_batch([1, 0], 1)], lr, momentum=0)
    return Work(toy, criterion, criterion.units, Ratio(criterion.units, ratio, limits), limits, tune=tune, log=log)


def normed(toy):
    return [unit for unit in find_units(toy) if unit.name in ("mix", "block.expand")]


def test_the_penalty_is_the_subgradient_of_network_slimming(toy, draw_batch, pixel_loss):
    units = normed(toy)
    before = toy.mix_norm.weight.detach().clone()
    criterion = Shrink(toy, units, pixel_loss)
    logged = []
    run = work(toy, draw_batch, criterion, 0.2, lr=0.0)
    losses = {}

    def tune(steps, terms, after_backward, after_step):
        toy.train()
        found = terms(draw_batch([0, 1]))
        losses.update(found)
        plain = torch.autograd.grad(found["risk"], toy.mix_norm.weight, retain_graph=True)[0]
        whole = torch.autograd.grad(sum(found.values()), toy.mix_norm.weight)[0]
        logged.append(whole - plain)
        toy.mix_norm.weight.data[:8] = 0.01

    Sparse(steps=1, beta=0.3, adapt=0, threshold=0.1).run(Work(toy, criterion, units, run.goal, run.limits, tune=tune))
    torch.testing.assert_close(logged[0], 0.3 * before.sign())
    assert float(losses["sparsity"].detach()) == pytest.approx(
        0.3 * sum(float(s.sum()) for s in (before.abs(), torch.ones(24).double())), rel=0.2
    )


def test_heavily_weighted_channels_go(toy, draw_batch, pixel_loss):
    units = normed(toy)
    weights = {unit.name: torch.full((unit.size,), 0.01, dtype=torch.float64) for unit in units}
    for channel in (1, 4, 9):
        weights["mix"][channel] = 30.0
    total = sum(unit.size for unit in units)
    criterion = Shrink(toy, units, pixel_loss, weights)
    done = Sparse(steps=60, beta=0.01, adapt=10).run(work(toy, draw_batch, criterion, 3 / total))
    assert done.removed == {"mix": [1, 4, 9]}
    assert toy.mix.out_channels == 11
    assert done.steps < 60, "it ends when enough scales are under the threshold"


def test_beta_follows_the_line(toy, draw_batch, pixel_loss):
    units = normed(toy)
    criterion = Shrink(toy, units, pixel_loss)
    with pytest.raises(
        InputError, match=r"no block .* is under 1e-06 after 30 steps; raise beta or steps, or set fill"
    ):
        Sparse(steps=30, beta=1e-3, adapt=10, threshold=1e-6).run(work(toy, draw_batch, criterion, 0.2))
    assert criterion.strengths[::10] == pytest.approx([1e-3, 1.25e-3, 1.25**2 * 1e-3])


def test_fill_takes_the_smallest_up_to_the_ratio(toy, draw_batch, pixel_loss, caplog):
    units = normed(toy)
    toy.mix_norm.weight.data[2] = 0.05
    total = sum(unit.size for unit in units)
    with caplog.at_level(logging.INFO, "hardy"):
        criterion = Shrink(toy, units, pixel_loss)
        done = Sparse(steps=1, beta=0.0, adapt=0, fill=True).run(work(toy, draw_batch, criterion, 4 / total, lr=0.0))
    assert f"{100 / total:.1f} % of the scales are under the threshold before" in caplog.text
    assert sum(map(len, done.removed.values())) == 4
    assert 2 in done.removed["mix"]


def test_without_fill_only_what_is_under_the_threshold_goes(toy, draw_batch, pixel_loss):
    units = normed(toy)
    toy.mix_norm.weight.data[[2, 5]] = 0.05
    criterion = Shrink(toy, units, pixel_loss)
    done = Sparse(steps=1, beta=0.0, adapt=0).run(work(toy, draw_batch, criterion, 0.4, lr=0.0))
    assert done.removed == {"mix": [2, 5]}


@pytest.mark.parametrize(
    ("under", "limits", "gone"),
    [(1, {"round_to": 4}, 0), (3, {"round_to": 4}, 2), (8, {"min_width": 10}, 4), (3, {"min_width": 13}, 1)],
)
def test_without_fill_a_block_goes_only_if_all_of_it_is_under_the_threshold(
    toy, draw_batch, pixel_loss, under, limits, gone
):
    """Neither what fills a block goes, nor channels of another unit in place of those that a minimum width keeps."""
    units = normed(toy)
    assert next(unit.size for unit in units if unit.name == "mix") == 14
    toy.mix_norm.weight.data[:under] = 0.05
    run = work(toy, draw_batch, Shrink(toy, units, pixel_loss), 0.3, lr=0.0, **limits)
    if gone:
        done = Sparse(steps=1, beta=0.0, adapt=0).run(run)
        assert {name: len(channels) for name, channels in done.removed.items()} == {"mix": gone}
        assert set(done.removed["mix"]) <= set(range(under))
    else:
        with pytest.raises(InputError, match=r"no block of channels is under 0\.1"):
            Sparse(steps=1, beta=0.0, adapt=0).run(run)


def test_a_relative_threshold_is_of_the_units_own_mean(toy, draw_batch, pixel_loss):
    units = normed(toy)
    toy.mix_norm.weight.data[:] = 0.01
    toy.mix_norm.weight.data[3] = 0.0001
    criterion = Shrink(toy, units, pixel_loss)
    options = {"steps": 1, "beta": 0.0, "adapt": 0, "relative": True}
    done = Sparse(**options).run(work(toy, draw_batch, criterion, 0.4, lr=0.0))
    assert done.removed == {"mix": [3]}


@pytest.mark.slow
def test_iterations_share_the_ratio_and_what_is_dead_stays_dead(toy, draw_batch, pixel_loss):
    units = normed(toy)
    criterion = Shrink(toy, units, pixel_loss, separate=True)
    logged = []
    options = {"steps": 20, "beta": 0.5, "adapt": 10, "fill": True, "iterations": 3, "settle": 2}
    run = work(toy, draw_batch, criterion, 0.3, log=lambda step, values: logged.append(values["removed"]))
    done = Sparse(**options).run(run)
    total = sum(unit.size for unit in units)
    assert sum(map(len, done.removed.values())) == round(0.3 * total)
    assert sorted(set(logged)) == [0, 4, 8, 11][: len(set(logged))]
    assert not any("parametrizations" in name for name in toy.state_dict())


def test_the_scores_reported_are_those_of_factors_before_they_are_folded(toy, draw_batch, pixel_loss):
    seen_values = {}

    class Recorded(Shrink):
        def release(self):
            seen_values.update(self.scores())
            super().release()

    criterion = Recorded(toy, normed(toy), pixel_loss, separate=True)
    done = Sparse(steps=6, beta=0.3, adapt=0, fill=True).run(work(toy, draw_batch, criterion, 0.3))
    assert not criterion.scales._factors
    assert {name: score.tolist() for name, score in done.scores.items()} == {
        name: score.tolist() for name, score in seen_values.items()
    }


def test_separate_factors_are_folded_by_every_schedule_that_trains_them(toy, draw_batch, pixel_loss):
    units = normed(toy)
    run = work(toy, draw_batch, Shrink(toy, units, pixel_loss, separate=True), 0.3)
    with pytest.raises(InputError, match="one_shot does not train, so the separate factors that Shrink scores all"):
        OneShot().run(run)
    Iterative(every=1, per_round=4).run(run)
    assert not any("factor" in name for name, _ in toy.named_parameters())


def test_a_criterion_without_a_penalty_is_refused(toy, draw_batch, pixel_loss):
    criterion = Random(toy, find_units(toy), pixel_loss, seed=0)
    with pytest.raises(InputError, match="needs a criterion with a penalty, such as npdg or slimming; Random has none"):
        Sparse().run(work(toy, draw_batch, criterion, 0.2))


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"iterations": 0}, {"beta": -1.0}, {"threshold": 0.0}, {"adapt": -1}]
)
def test_values_out_of_range(options):
    with pytest.raises(InputError, match="schedule: "):
        Sparse(**options)


class Weigh:
    """A goal of cost: a channel of block.expand weighs 3, one of mix 1."""

    def __init__(self, least):
        self.least = least

    def most(self, dead):
        return 38 - sum(map(len, dead.values()))

    def met(self, dead):
        return 3 * len(dead.get("block.expand", ())) + len(dead.get("mix", ())) >= self.least

    def confirm(self, dead):
        return True


@pytest.mark.parametrize("fill", [True, False])
def test_a_cost_is_met_and_no_more_than_met(toy, draw_batch, pixel_loss, fill):
    units = normed(toy)
    criterion = Shrink(toy, units, pixel_loss)
    run = work(toy, draw_batch, criterion, 0.2)
    goal = Weigh(20)
    whole = Work(toy, criterion, units, goal, run.limits, tune=run.tune)
    done = Sparse(steps=200, beta=0.2, adapt=10, fill=fill).run(whole)
    assert goal.met(done.removed)
    lost = sum(map(len, done.removed.values()))
    assert lost < 20, "some of the heavier channels are among them"
    fewer = {name: channels[1:] for name, channels in done.removed.items() if name == "block.expand"}
    assert not goal.met({**done.removed, **fewer}), "one channel less would not do"


def test_rounded_widths_end_the_training_too(toy, draw_batch, pixel_loss):
    units = normed(toy)
    criterion = Shrink(toy, units, pixel_loss)
    run = work(toy, draw_batch, criterion, 0.4, min_width=4, round_to=4)
    done = Sparse(steps=400, beta=0.3, adapt=10).run(run)
    assert done.steps < 400
    assert all(after == before or after % 4 == 0 for before, after in done.widths.values())
