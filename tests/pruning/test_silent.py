"""Norms that add to a residual stream are masked, not cut: what goes with them, and what stays silent."""

import copy

import pytest
import torch
from residual_network import Residual

from hardy.losses.cross_entropy import CrossEntropy
from hardy.pruning.criteria.l2 import L2
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.goal import Ratio
from hardy.pruning.masked import masked_copy
from hardy.pruning.remove import remove, replay
from hardy.pruning.residual import refined
from hardy.pruning.risk import domain_risks
from hardy.pruning.schedules.base import Work, remove_and_check
from hardy.pruning.select import Limits, select
from hardy.pruning.shapes import Layers, dense_widths
from hardy.pruning.silent import kept_silent, silent
from hardy.pruning.units import find_units


@pytest.fixture
def basic(randomised):
    torch.manual_seed(0)
    network = Residual()
    randomised(network)
    return network.double().eval()


def removal(units):
    """A channel of a stream, the same and another of two norms that add to it, and one inside a block."""
    names = {"conv1": [1], "stage1.0.bn2": [1, 2], "stage1.1.bn2": [3], "stage2.0.bn2": [0], "stage1.0.conv1": [0]}
    assert names.keys() <= {unit.name for unit in units}
    return names


def test_masked_and_removed_agree_and_only_what_stands_alone_is_cut(basic):
    units = refined(basic, find_units(basic))
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    masked = masked_copy(basic, units, removal(units))
    with torch.no_grad():
        expected, before = masked(images), basic(images)
    work = Work(basic, L2(basic, units, CrossEntropy(4)), units, None, Limits(min_width=1))
    pruned = remove_and_check(work, removal(units), {}, 1)
    with torch.no_grad():
        torch.testing.assert_close(basic(images), expected, rtol=0, atol=1e-12)
    assert float((expected - before).abs().max()) > 1e-3
    assert basic.stage1[0].bn2.num_features == 3  # channel 1 of the stream is gone, 2 is masked and became 1
    assert basic.stage1[0].bn2.weight.tolist()[1] == 0
    assert basic.stage1[1].bn2.weight.tolist()[2] == 0
    assert basic.stage1[0].conv2.weight[1].abs().max() == 0
    assert basic.stage2[0].conv2.out_channels == 6
    assert basic.stage1[0].conv1.out_channels == 3
    assert pruned.widths["stage1.0.bn2"] == (4, 2)
    assert pruned.ratio == 6 / sum(unit.size for unit in units)


def test_the_plan_alone_replays_the_cut(basic):
    fresh = Residual().double().eval()
    units = refined(basic, find_units(basic))
    plan = remove(basic, units, removal(units))
    replay(fresh, plan)
    fresh.load_state_dict(basic.state_dict())
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(fresh(images), basic(images))


def test_a_second_pruning_neither_counts_nor_removes_what_is_silent(basic, batch):
    units = refined(basic, find_units(basic))
    before = {unit.name: unit.size for unit in units}
    remove(basic, units, removal(units) | {"stage2.0.bn2": list(range(before["stage2.0.bn2"]))})
    units = refined(basic, find_units(basic))
    after = {unit.name: unit.size for unit in units}
    assert (before["stage1.0.bn2"], after["stage1.0.bn2"]) == (4, 2), "1 went with the stream, 2 is silent"
    assert after["stage1.1.bn2"] == 2
    assert after["stage1.0.conv1"] == before["stage1.0.conv1"] - 1
    assert "stage2.0.bn2" in before
    assert "stage2.0.bn2" not in after, "all of it is silent"
    scores = Taylor(basic, units, CrossEntropy(4))
    sum(scores.observe(batch).values()).backward()
    scores.collect()
    found = scores.scores()
    assert {name: len(values) for name, values in found.items()} == after
    assert all(bool((found[name] > 0).all()) for name in ("stage1.0.bn2", "stage1.1.bn2")), "what is silent scores 0"


def test_a_ratio_counts_the_authors_gates(basic):
    units = refined(basic, find_units(basic))
    limits = Limits(min_width=1)
    goal = Ratio(units, 0.5, limits)
    assert goal.count == 25
    scores = {unit.name: torch.linspace(0, 1, unit.size, dtype=torch.float64) for unit in units}
    assert sum(map(len, select(scores, units, goal.count, {}, limits).values())) == 25


def test_masked_norms_save_no_work(basic):
    units = refined(basic, find_units(basic))
    layers = Layers(basic, units, (16, 16))
    dense = dense_widths(units)
    parts = {unit.name: 1 for unit in units if unit.within}
    assert layers.gmacs(dense | parts) == layers.gmacs(dense)
    assert layers.gmacs(dense | {"conv1": 3}) < layers.gmacs(dense)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_silent_channels_stay_so_in_recovery(basic, batch, pixel_loss, kind, training):
    units = refined(basic, find_units(basic))
    remove(basic, units, removal(units))
    assert {name: quiet.nonzero().flatten().tolist() for name, quiet in silent(basic).items()} == {
        "stage1.0.bn2": [1],
        "stage1.1.bn2": [2],
        "stage2.0.bn2": [0],
    }
    optimiser = kind(basic.parameters(), lr=0.1)
    basic.train(training)
    before = copy.deepcopy(basic.state_dict())

    def train():
        for _ in range(3):
            optimiser.zero_grad()
            domain_risks(basic, batch, pixel_loss)[0].mean().backward()
            optimiser.step()

    with kept_silent(basic):
        train()
    assert {name: quiet.nonzero().flatten().tolist() for name, quiet in silent(basic).items()} == {
        "stage1.0.bn2": [1],
        "stage1.1.bn2": [2],
        "stage2.0.bn2": [0],
    }
    assert all(
        not torch.equal(basic.state_dict()[f"stage1.{i}.bn2.bias"], before[f"stage1.{i}.bn2.bias"]) for i in (0, 1)
    )
    train()
    assert "stage1.0.bn2" not in silent(basic)  # nothing is left behind
