"""The pruning loops: what is averaged, what is masked when, what is left."""

import copy

import pytest
import torch
from loops import trainer

from hardy.errors import InputError
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.criteria.ior import IoR
from hardy.pruning.criteria.l2 import L2
from hardy.pruning.criteria.random import Random
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.goal import Ratio
from hardy.pruning.schedules import base
from hardy.pruning.schedules.base import Work
from hardy.pruning.schedules.iterative import Iterative
from hardy.pruning.schedules.one_shot import OneShot
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units


def goal(units, ratio, limits):
    limits = Limits(**limits)
    return Ratio(units, ratio, limits), limits


def one_shot(network, criterion, units, batches=(), *, ratio, **limits):
    return OneShot().run(Work(network, criterion, units, *goal(units, ratio, limits), batches=iter(batches)))


def iterative(network, criterion, units, tune, *, ratio, every=30, per_round=100, log=None, **limits):
    schedule = Iterative(every=every, per_round=per_round)
    return schedule.run(Work(network, criterion, units, *goal(units, ratio, limits), tune=tune, log=log))


class Scripted(Criterion):
    """Scores by a script, one set after the other; notes what is called."""

    needs_data = False

    def __init__(self, network, units, pixel_loss, script):
        super().__init__(network, units, pixel_loss)
        self.script = iter(script)
        self.calls = []

    def reset(self):
        self.calls.append("reset")

    def collect(self):
        self.calls.append("collect")

    def scores(self):
        self.calls.append("scores")
        return next(self.script)


def flat(units, **chosen):
    """Scores of 1 but for the channels named: ``stem={0: 0.1}``."""
    values = {unit.name: torch.ones(unit.size, dtype=torch.float64) for unit in units}
    for name, channels in chosen.items():
        for channel, value in channels.items():
            values[name][channel] = value
    return values


def test_the_moving_average_decides(toy, draw_batch, pixel_loss):
    units = find_units(toy)
    script = [
        flat(units, mix={0: 0.0, 1: 0.2}, up={0: 0.3}),  # mix 0 goes
        flat(units, mix={1: 3.0}, up={0: 0.4}, side={5: -8.0}),  # 0.9 0.2 + 0.1 3 = 0.48; 0.31; side 0.9 - 0.8 = 0.1
        flat(units, up={0: 0.9}),  # up 0.9 0.31 + 0.09 = 0.369; mix 0.9 0.48 + 0.1 = 0.532
    ]
    total = sum(unit.size for unit in units)
    criterion = Scripted(toy, units, pixel_loss, script)
    logged = []
    done = iterative(
        toy,
        criterion,
        units,
        tune := trainer(toy, [draw_batch([0, 1])]),
        ratio=3 / total,
        every=2,
        per_round=1,
        min_width=2,
        log=lambda step, values: logged.append((step, values["removed"])),
    )
    assert done.removed == {"side": [5], "mix": [0], "up": [0]}
    assert done.rounds == 3
    assert logged == [(2, 1), (4, 2), (6, 3)]
    assert tune.steps_made == [2, 2, 2]
    assert criterion.calls == ["reset", "collect", "collect", "scores"] * 3
    assert float(done.scores["up"][0]) == pytest.approx(0.369)
    assert done.ratio == pytest.approx(3 / total)
    assert done.widths["mix"] == (14, 13)
    assert toy.mix.out_channels == 13


def test_dead_channels_stay_dead_through_training(toy, draw_batch, pixel_loss):
    units = find_units(toy)
    watched = []
    inner = trainer(toy, [draw_batch([0, 1, 2]), draw_batch([2, 0, 1], 1)])

    def tune(steps, terms, after_backward, after_step):
        def noted():
            after_step()
            watched.append(
                [int((p.detach().flatten(1).abs().sum(1) == 0).sum()) for p in (toy.mix.weight, toy.side.weight)]
            )

        inner(steps, terms, after_backward, noted)

    done = iterative(toy, IoR(toy, units, pixel_loss), units, tune, ratio=0.4, every=3, per_round=10, min_width=4)
    total = sum(unit.size for unit in units)
    assert sum(map(len, done.removed.values())) == round(0.4 * total)
    assert done.rounds == -(-round(0.4 * total) // 10)
    assert len(watched) == 3 * done.rounds
    assert watched == sorted(watched)
    assert all(row == watched[3 * (i // 3)] for i, row in enumerate(watched))
    assert all(after >= min(4, before) for before, after in done.widths.values())
    assert toy.plan == done.plan


@pytest.mark.parametrize("criterion", [Taylor, IoR, L2])
def test_rounded_widths(toy, draw_batch, pixel_loss, criterion):
    units = find_units(toy)
    tune = trainer(toy, [draw_batch([0, 1])])
    made = criterion(toy, units, pixel_loss)
    done = iterative(toy, made, units, tune, ratio=0.3, every=1, per_round=8, min_width=4, round_to=4)
    assert all(after == before or after % 4 == 0 for before, after in done.widths.values())
    total = sum(unit.size for unit in units)
    assert 0.3 * total - 4 < sum(map(len, done.removed.values())) <= round(0.3 * total)


def test_with_layer_scope_every_layer_loses_its_share_round_by_round(toy, draw_batch, pixel_loss):
    """A round's share is less than a block of every layer, so that most rounds remove nothing."""
    units = [unit for unit in find_units(toy) if unit.size >= 8]
    rounds = []
    limits = Limits(min_width=2, round_to=4, scope="layer")
    run = Work(
        toy,
        L2(toy, units, pixel_loss),
        units,
        Ratio(units, 0.5, limits),
        limits,
        tune=trainer(toy, [draw_batch([0, 1])]),
        log=lambda step, values: rounds.append((step, values["removed"])),
    )
    done = Iterative(every=1, per_round=4).run(run)
    assert set(done.widths.values()) == {(12, 8), (24, 12), (10, 8), (14, 8), (9, 8)}
    assert len(rounds) > 1


@pytest.mark.slow
def test_pruned_network_trains_on_and_prunes_again(toy, draw_batch, pixel_loss):
    batches = [draw_batch([0, 1, 2])]
    dense = copy.deepcopy(toy)
    for _ in range(2):
        units = find_units(toy)
        one_shot(toy, Taylor(toy, units, pixel_loss), units, batches, ratio=0.25, min_width=3)
    trainer(toy, batches)(2, lambda b: {"x": pixel_loss(toy(b.images), b.labels)}, lambda: None, lambda: None)
    kept = sum(unit.size for unit in find_units(toy)) / sum(unit.size for unit in find_units(dense))
    assert kept == pytest.approx(0.75**2, abs=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_one_shot_scores_a_network_that_stands_still(toy, draw_batch, pixel_loss, training):
    toy.train(training)
    toy.stem.weight.requires_grad_(False)
    toy.head.weight.grad = torch.ones_like(toy.head.weight)
    units, batches = find_units(toy), [draw_batch([0, 1, 1], seed) for seed in range(3)]
    twin = copy.deepcopy(toy)
    expected = IoR(twin, units, pixel_loss)
    twin.requires_grad_(True)
    for batch in batches:
        twin.zero_grad()
        sum(expected.observe(batch).values()).backward()
        expected.collect()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    done = one_shot(toy, IoR(toy, units, pixel_loss), units, batches, ratio=0.2, min_width=4)
    for name, scores in expected.scores().items():
        torch.testing.assert_close(done.scores[name], scores, rtol=1e-6, atol=1e-12)
    assert toy.training is training
    assert not toy.stem.weight.requires_grad
    assert toy.head.bias.requires_grad
    assert toy.head.bias.grad is None
    for name, value in toy.state_dict().items():
        if "num_batches" in name:
            assert torch.equal(value, before[name])
    kept = [i for i in range(14) if i not in done.removed.get("mix", [])]
    assert torch.equal(toy.mix_norm.running_mean, before["mix_norm.running_mean"][kept])


def test_one_shot_needs_batches_only_for_data(toy, pixel_loss):
    units = find_units(toy)
    with pytest.raises(InputError, match="no batch"):
        one_shot(toy, Taylor(toy, units, pixel_loss), units, ratio=0.2, min_width=4)
    assert toy.mix.out_channels == 14
    one_shot(toy, L2(toy, units, pixel_loss), units, ratio=0.2, min_width=4)
    assert toy.plan


def test_what_cannot_be_done_is_said_before_training(toy, pixel_loss):
    units = find_units(toy)

    def tune(*_):
        raise AssertionError("trained")

    by_norm = L2(toy, units, pixel_loss)
    with pytest.raises(InputError, match=r"ratio 0\.9 cannot be reached"):
        iterative(toy, by_norm, units, tune, ratio=0.9)
    with pytest.raises(InputError, match="per_round 4"):
        iterative(toy, by_norm, units, tune, ratio=0.1, per_round=4, round_to=8)


def test_a_removal_that_changes_the_network_is_refused(toy, pixel_loss, monkeypatch):
    units = find_units(toy)
    unmasked = lambda network, *_: copy.deepcopy(network)  # noqa: E731 - the channels still count when they are cut
    monkeypatch.setattr(base, "masked_copy", unmasked)
    with pytest.raises(RuntimeError, match="removing channels changed the network's logits"):
        one_shot(toy, L2(toy, units, pixel_loss), units, ratio=0.3, min_width=4)


def test_a_ratio_below_one_block_of_widths_is_refused(toy, pixel_loss):
    even = [unit for unit in find_units(toy) if unit.size % 2 == 0]
    one = 1.2 / sum(unit.size for unit in even)
    with pytest.raises(InputError, match="less than one block of round_to"):
        one_shot(toy, Random(toy, even, pixel_loss, seed=0), even, ratio=one, min_width=2, round_to=2)
    assert one_shot(toy, Random(toy, even, pixel_loss, seed=0), even, ratio=one, min_width=2).rounds == 1
