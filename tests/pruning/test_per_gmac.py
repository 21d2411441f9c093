"""Scores divided by the GMACs that a channel costs, counted by a network that is really narrower."""

import copy
from dataclasses import replace

import pytest
import torch

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs
from hardy.pruning.criteria.ior import IoR
from hardy.pruning.criteria.l2 import L2
from hardy.pruning.criteria.per_gmac import PerGmac
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units

SIZE = (32, 48)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create("tiny", "camvid11", width=16)


def test_a_unit_is_divided_by_what_one_channel_less_saves(network, pixel_loss):
    units = find_units(network)
    scores = PerGmac(network, units, pixel_loss, of={"l2": {}}, size=SIZE).scores()
    plain = L2(network, units, pixel_loss).scores()
    cost = {}
    for unit in units:
        narrower = copy.deepcopy(network)
        remove(narrower, find_units(narrower), {unit.name: [0]})
        cost[unit.name] = gmacs(network, SIZE) - gmacs(narrower, SIZE)
    mean = sum(unit.size / cost[unit.name] for unit in units) / sum(unit.size for unit in units)
    assert len({round(value, 9) for value in cost.values()}) > 2
    for unit in units:
        torch.testing.assert_close(scores[unit.name], plain[unit.name] / (cost[unit.name] * mean))


def test_a_unit_that_saves_nothing_alone_has_the_least_cost(network, pixel_loss, monkeypatch):
    units = find_units(network)
    criterion = PerGmac(network, units, pixel_loss, of={"l2": {}}, size=SIZE)
    saved = dict(zip((unit.name for unit in units), [0.0, 4.0, 2.0, *[3.0] * (len(units) - 3)], strict=True))

    class Counted:
        def __init__(self, *_):
            pass

        def gmacs(self, widths):
            return sum(saved[unit.name] * widths[unit.name] for unit in units)

    monkeypatch.setattr("hardy.pruning.criteria.per_gmac.Layers", Counted)
    scores, plain = criterion.scores(), L2(network, units, pixel_loss).scores()
    first, second, third = (float((plain[unit.name] / scores[unit.name]).mean()) for unit in units[:3])
    assert (first / third, second / third) == pytest.approx((1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": {}}, "PerGmac.of: {} must be one criterion"),
        ({"of": {"l1": {}, "l2": {}}}, "must be one criterion"),
        ({"of": {"l2": {}}}, "l2 sees no images; give size"),
        ({"of": {"l2": {}}, "size": [32]}, "PerGmac.size"),
        ({"of": {"slimming": {}}}, "the scores of slimming are scales that training shrinks below a threshold"),
    ],
)
def test_what_cannot_be_is_one_line(network, pixel_loss, options, message):
    with pytest.raises(InputError, match=message):
        PerGmac(network, find_units(network), pixel_loss, **options)


def test_rivals_are_divided_by_the_same_costs(network, draw_batch, pixel_loss):
    units, batch = find_units(network), draw_batch([0, 1, 0, 1], size=32)
    batch = replace(batch, images=batch.images.float())
    found = {}
    for name, criterion in {
        "plain": IoR(copy.deepcopy(network), units, pixel_loss),
        "divided": PerGmac(copy.deepcopy(network), units, pixel_loss, of={"ior": {}}),
    }.items():
        sum(criterion.observe(batch).values()).backward()
        criterion.collect()
        found[name] = (criterion.scores(), criterion.rivals()["taylor"])
    for unit in units:
        own, rival = (
            (plain / divided)[plain > 0].mean()
            for plain, divided in (
                (found["plain"][place][unit.name], found["divided"][place][unit.name]) for place in (0, 1)
            )
        )
        torch.testing.assert_close(own, rival)
