"""The sensitivity sweep: what is masked, what is measured, and which floors follow."""

import copy

import pytest
import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn.utils import parametrize

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.pruning.criteria.l2 import L2
from hardy.pruning.goal import Ratio, choose
from hardy.pruning.mask import mask
from hardy.pruning.masked import masked_copy
from hardy.pruning.remove import remove
from hardy.pruning.scales import Scales
from hardy.pruning.select import Limits
from hardy.pruning.sweep import Group, alone, stages, sweep
from hardy.pruning.units import find_units


def ascending(units):
    """Scores that rise with the index: the first channels are the lowest."""
    return {unit.name: torch.arange(unit.size, dtype=torch.float64) for unit in units}


def dead_channels(network, units):
    """For each unit's name how many of its channels are masked: the weights of their first layer are zero."""
    counts = {}
    for unit in units:
        weight = network.get_submodule(unit.name).weight.detach()
        rows = weight.transpose(0, 1) if isinstance(network.get_submodule(unit.name), nn.ConvTranspose2d) else weight
        counts[unit.name] = int((rows.flatten(1).abs().sum(1) == 0).sum())
    return counts


def test_each_share_of_each_unit_is_masked_alone(toy):
    units = find_units(toy)
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    measured = []

    def measure(trial):
        measured.append(dead_channels(trial, units))
        return 1 - sum(measured[-1].values()) / 100

    found = sweep(toy, ascending(units), alone(units), (0.75, 0.25), measure)
    assert found.score == 1.0
    assert found.shares == (0.25, 0.75)
    assert measured[0] == dict.fromkeys([unit.name for unit in units], 0)
    wanted = [(unit.name, int(share * unit.size)) for unit in units for share in (0.25, 0.75)]
    assert [(name, count) for each in measured[1:] for name, count in each.items() if count] == wanted
    for (name, count), loss in zip(wanted, found.losses, strict=True):
        assert [unit.name for unit in loss.group.units] == [name]
        assert loss.drop == pytest.approx(count / 100)
        assert loss.widths == {name: next(unit.size for unit in units if unit.name == name) - count}
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())


def test_the_floor_is_the_least_width_up_to_which_the_drop_is_tolerated(toy):
    """Of 12 channels 3, 6, 9 go: drops 0.01, 0.05, 0.0 allow the first only; what comes after a fall counts not."""
    units = [unit for unit in find_units(toy) if unit.name in ("stem", "block.expand")]
    small, wide = units
    assert (small.size, wide.size) == (12, 24)
    scores = iter([0.9, 0.89, 0.85, 0.9, 0.7, 0.9, 0.9])
    found = sweep(toy, ascending(units), alone(units), (0.25, 0.5, 0.75), lambda trial: next(scores))
    assert found.floors(0.02) == {"stem": 9, "block.expand": 24}
    assert found.floors(0.05 + 1e-9) == {"stem": 3, "block.expand": 24}
    assert found.floors(0.2 + 1e-9) == {"stem": 3, "block.expand": 6}
    assert found.floors(0.0) == {"stem": 12, "block.expand": 24}


def test_a_score_that_is_no_number_is_no_width(toy):
    units = find_units(toy)[:1]
    scores = iter([0.9, float("nan")])
    assert sweep(toy, ascending(units), alone(units), (0.5,), lambda trial: next(scores)).floors(1.0) == {
        units[0].name: units[0].size
    }


def test_a_width_is_measured_once_and_one_channel_is_left():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1))
    units = find_units(layers, torch.rand(1, 3, 8, 8))
    (unit,) = units
    assert [Group((unit,)).lowest(ascending(units), share) for share in (0.25, 0.5, 0.99)] == [
        {},
        {"0": [0]},
        {"0": [0]},
    ]
    calls = []
    found = sweep(layers, ascending(units), alone(units), (0.25, 0.5, 0.99), lambda trial: calls.append(1) or 0.5)
    assert len(calls) == 2
    assert [loss.widths for loss in found.losses] == [{"0": 2}, {"0": 1}, {"0": 1}]


@pytest.mark.costly
def test_stages_are_neighbours_of_one_resolution():
    network = create("fast_scnn", "camvid11")
    units = find_units(network)
    groups = stages(network, units)
    assert [unit for group in groups for unit in group.units] == units
    assert 1 < len(groups) < len(units)
    assert groups[0].units[0] is units[0]
    assert groups[-1].name == f"{groups[-1].units[0].name} + {len(groups[-1].units) - 1}"
    once = sweep(
        network, ascending(units), groups[:1], (0.5,), lambda trial: sum(dead_channels(trial, groups[0].units).values())
    )
    assert once.losses[0].drop == -sum(unit.size // 2 for unit in groups[0].units)
    assert set(once.floors(0)) == {unit.name for unit in groups[0].units}


def test_stages_of_a_network_by_hand(toy):
    """The stem halves the size; the transposed convolution brings it back."""
    groups = [[unit.name for unit in group.units] for group in stages(toy, find_units(toy))]
    assert groups == [["stem", "block.expand", "side", "mix"], ["up"]]


# ------------------------------------------------------------------------------------------------ floors in a selection


def test_floors_hold_in_a_selection_and_are_rounded_up(toy):
    units = find_units(toy)
    limits = Limits(min_width=2, round_to=4, floors={"mix": 9, "side": 10, "stem": 1})
    floors = {unit.name: limits.floor(unit) for unit in units}
    assert floors == {"stem": 4, "block.expand": 4, "side": 10, "mix": 12, "up": 4}
    total = sum(unit.size for unit in units)
    reachable = (total - sum(floors.values())) / total
    goal = Ratio(units, reachable - 1e-3, limits)
    chosen = choose(ascending(units), units, goal, {}, limits)
    assert all(unit.size - len(chosen.get(unit.name, ())) >= floors[unit.name] for unit in units)
    with pytest.raises(
        InputError, match=r"with min_width 2, round_to 4 and the widths that prune\.floors measured at most 0\.\d+ of"
    ) as caught:
        Ratio(units, reachable + 0.05, limits)
    assert str(caught.value).endswith("lower ratio or min_width or round_to or raise prune.floors.tolerance")


# --------------------------------------------------------------------------------------------------------- the copies


def test_a_masked_copy_is_what_is_left_after_the_cut(toy, draw_batch):
    units = find_units(toy)
    removed = {"mix": [0, 3], "stem": [1], "up": [8]}
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    trial = masked_copy(toy, units, removed).eval()
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    remove(toy, units, removed)
    images = draw_batch([0, 1]).images
    torch.testing.assert_close(trial(images), toy.eval()(images), rtol=1e-12, atol=1e-12)


def test_a_masked_copy_has_trained_factors_multiplied_in(toy, draw_batch):
    """Also for a network that is masked already."""
    units = find_units(toy)
    images = draw_batch([0, 1]).images
    plain = copy.deepcopy(toy)
    Scales(toy, units, separate=True)
    with torch.no_grad():
        for name, parameter in toy.named_parameters():
            if name.endswith(".factor"):
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    trial = masked_copy(toy, units, {})
    assert not any(parametrize.is_parametrized(module) for module in trial.modules())
    assert parametrize.is_parametrized(toy.stem_norm) or parametrize.is_parametrized(toy.block.norm3)
    torch.testing.assert_close(trial.eval()(images), toy.eval()(images), rtol=1e-12, atol=1e-12)
    masked = masked_copy(toy, units, {"mix": [0, 5]}).eval()
    folded = masked_copy(toy, units, {}).eval()
    mask(folded, units, {"mix": [0, 5]})
    assert torch.equal(masked(images), folded(images))
    assert not torch.equal(masked(images), plain.eval()(images))


def test_a_masked_copy_of_a_masked_norm_over_channels_goes_on_from_there():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), LayerNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)).double()
    nn.init.normal_(layers[1].weight)
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    units = find_units(layers, images)
    mask(layers, units, {"0": [0, 1]})
    again, trial = (masked_copy(layers, units, {"0": gone}) for gone in ([0, 1], [0, 1, 5]))
    torch.testing.assert_close(again(images), layers(images), rtol=1e-12, atol=1e-12)
    remove(layers, units, {"0": [0, 1, 5]})
    torch.testing.assert_close(trial(images), layers(images), rtol=1e-12, atol=1e-12)


def test_scores_of_a_criterion_decide_what_is_masked(toy, pixel_loss):
    units = find_units(toy)
    scores = L2(toy, units, pixel_loss).scores()
    lowest = Group((units[0],)).lowest(scores, 0.25)[units[0].name]
    assert lowest == sorted(torch.argsort(scores[units[0].name])[:3].tolist())
