"""Rank correlation, channels kept in common, and the readings of a criterion, by hand and by an independent formula."""

import pytest
import torch

from hardy.errors import InputError
from hardy.pruning.agreement import kept_alike, rank_correlation, readings
from hardy.pruning.criteria.activation_variance import ActivationVariance
from hardy.pruning.criteria.ior import IoR
from hardy.pruning.criteria.l2 import L2
from hardy.pruning.criteria.michel_heads import MichelHeads
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.criteria.taylor_activation import TaylorActivation
from hardy.pruning.criteria.taylor_weight import TaylorWeight
from hardy.pruning.goal import Ratio
from hardy.pruning.select import Limits
from hardy.pruning.units import Unit, find_units


def named(*values):
    return {"a": torch.tensor(values, dtype=torch.float64)}


def test_rank_correlation_by_hand():
    """Ranks 1 2 3 4 and 2 1 4 3: 1 - 6 (1 + 1 + 1 + 1) / (4 15) = 0.6."""
    assert rank_correlation(named(0.1, 0.2, 5.0, 6.0), named(20.0, 10.0, 40.0, 30.0)) == pytest.approx(0.6)
    assert rank_correlation(named(1.0, 2.0, 3.0), named(9.0, 4.0, 1.0)) == pytest.approx(-1)


def test_equal_scores_share_their_mean_rank():
    """Ranks 1.5 1.5 3 and 1 2 3, around their mean 2: (0.5 + 0 + 1) / (sqrt(1.5) sqrt(2))."""
    assert rank_correlation(named(0.0, 0.0, 7.0), named(1.0, 2.0, 3.0)) == pytest.approx(1.5 / 3**0.5)
    assert rank_correlation(named(1.0, 1.0), named(1.0, 2.0)) is None


def test_masked_channels_do_not_count():
    """Without channels 0 and 1, which are zero in both, the order of the others is reversed."""
    one, other = named(0.0, 0.0, 1.0, 2.0), named(0.0, 0.0, 2.0, 1.0)
    assert rank_correlation(one, other, {"a": [0, 1]}) == pytest.approx(-1)
    assert rank_correlation(one, other) > 0.5


def test_kept_alike_by_hand():
    """Of 10 channels 5 go. One keeps 5..9, the other 6..9 and 0: 4 of 5 are the same."""
    units = [Unit("a", 10, ())]
    limits = Limits(min_width=1)
    one = {"a": torch.arange(10, dtype=torch.float64)}
    other = {"a": torch.tensor([20.0, 1, 2, 3, 4, 5, 6, 7, 8, 9], dtype=torch.float64)}
    goal = Ratio(units, 0.5, limits)
    assert kept_alike(one, other, units, goal, {}, limits) == pytest.approx(4 / 5)
    assert kept_alike(one, one, units, goal, {}, limits) == 1
    # 9 is gone before: one removes 0..3 and keeps 4..8, the other removes 1..4 and keeps 0, 5..8
    assert kept_alike(one, other, units, goal, {"a": [9]}, limits) == pytest.approx(4 / 5)


def observed(criterion, batches):
    for batch in batches:
        criterion.network.zero_grad(set_to_none=True)
        sum(criterion.observe(batch).values()).backward()
        criterion.collect()
    return criterion


CRITERIA = [
    Taylor,
    lambda *a: Taylor(*a, square="after"),
    lambda *a: Taylor(*a, square="sample"),
    IoR,
    lambda *a: IoR(*a, scale="risk", passes="frozen"),
    TaylorWeight,
    TaylorActivation,
    MichelHeads,
]


@pytest.mark.parametrize("make", CRITERIA)
def test_halves_are_the_scores_of_every_other_batch(toy, draw_batch, pixel_loss, make):
    toy.eval()
    batches = [draw_batch([0, 1, 2, 1], seed=seed) for seed in range(5)]
    units = find_units(toy)
    assert observed(make(toy, units, pixel_loss), batches[:1]).halves() is None
    halves = observed(make(toy, units, pixel_loss), batches).halves()
    for half, some in zip(halves, (batches[::2], batches[1::2]), strict=True):
        expected = observed(make(toy, units, pixel_loss), some).scores()
        for name, values in expected.items():
            torch.testing.assert_close(half[name], values, rtol=1e-9, atol=1e-18)


def test_halves_of_styles_are_means_of_the_batches(toy, draw_batch, pixel_loss):
    """The two halves and the score are means of the same five values: (3 first + 2 second) / 5."""
    toy.eval()
    criterion = ActivationVariance(toy, find_units(toy), pixel_loss, seed=0)
    one, other = observed(criterion, [draw_batch([0, 1], seed=seed) for seed in range(5)]).halves()
    for name, score in criterion.scores().items():
        torch.testing.assert_close((3 * one[name] + 2 * other[name]) / 5, score)
        assert not torch.allclose(one[name], other[name])


def test_readings_of_ior(toy, draw_batch, pixel_loss):
    toy.eval()
    batches = [draw_batch([0, 1, 2, 1], seed=seed) for seed in range(4)]
    units, limits = find_units(toy), Limits(min_width=1)
    ior = observed(IoR(toy, units, pixel_loss, alpha=3.0), batches)
    found = readings(ior, units, Ratio(units, 0.5, limits), {}, limits)
    taylor = observed(Taylor(toy, units, pixel_loss), batches).scores()
    m = torch.cat([taylor[unit.name] for unit in units])
    score = torch.cat([ior.scores()[unit.name] for unit in units])
    shares = (1 - m / score)[score > 0]  # in evaluation mode the auxiliary head has no gradient
    assert found["variance_share"] == pytest.approx(float(shares.median()), rel=1e-9)
    assert found["taylor_rank"] == pytest.approx(rank_correlation(ior.scores(), taylor))
    assert found["taylor_kept"] == kept_alike(ior.scores(), taylor, units, Ratio(units, 0.5, limits), {}, limits)
    assert found["reliability"] == pytest.approx(rank_correlation(*ior.halves()))
    assert found["risk_variance"] > 0
    assert readings(L2(toy, units, pixel_loss), units, Ratio(units, 0.5, limits), {}, limits) == {}


def test_too_few_batches_to_accumulate(toy, draw_batch, pixel_loss):
    for kind in (Taylor, IoR):
        criterion = observed(kind(toy, find_units(toy), pixel_loss, accumulate=3), [draw_batch([0, 1])] * 2)
        with pytest.raises(
            InputError, match="accumulate 3: this many batches are averaged before squaring, but a round has only 2"
        ):
            criterion.scores()
