"""What holds for every criterion."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.networks.building.create import create
from hardy.pruning.goal import Ratio
from hardy.pruning.schedules.base import Work
from hardy.pruning.schedules.one_shot import OneShot
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units
from hardy.registry import CRITERIA
from hardy.seed import seeded
from hardy.types import Batch


def pixel_loss(logits, labels):
    return F.cross_entropy(logits, labels, ignore_index=255)


@pytest.fixture(scope="module")
def drawn():
    """As after some training: the norms' scales and shifts are not 1 and 0; no test changes it."""
    torch.manual_seed(0)
    network = create("tiny", "camvid11", width=16)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return network


@pytest.fixture
def network(drawn):
    torch.manual_seed(0)
    return copy.deepcopy(drawn)


@pytest.fixture(scope="module")
def units(drawn):
    return find_units(drawn)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 11, (4, 32, 48), generator=generator)
    return Batch(torch.rand(4, 3, 32, 48, generator=generator), labels, torch.tensor([0, 1, 0, 1]))


ARTEFACTS = {}
"""Options that name an artefact, by the option's name."""


@pytest.fixture(autouse=True)
def artefacts(style_folder):
    ARTEFACTS["style"] = style_folder


def build(name, network, units, pixel_loss):
    """A criterion as a run makes it: under the run's seed, with the artefacts that it has an option for."""
    options = {
        o.name: ARTEFACTS[o.name] for o in CRITERIA.describe(name).options if o.name in ARTEFACTS and o.type == "str"
    }
    with seeded(0, "criterion"):
        return CRITERIA.build(name, {"network": network, "units": units, "pixel_loss": pixel_loss}, **options)


def observed(criterion, seeds=(0, 1)):
    if criterion.needs_data:
        for seed in seeds:
            criterion.network.zero_grad()
            terms = criterion.observe(batch(seed))
            assert all(term.ndim == 0 and term.requires_grad for term in terms.values())
            sum(terms.values()).backward()
            criterion.collect()
    return criterion.scores()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CRITERIA.names())
def test_scores_every_channel_of_every_unit(name, network, units, training):
    network.train(training)
    scores = observed(build(name, network, units, pixel_loss))
    assert list(scores) == [unit.name for unit in units]
    for unit in units:
        value = scores[unit.name]
        assert value.shape == (unit.size,)
        assert value.dtype == torch.float64
        assert value.device.type == "cpu"
        assert not value.requires_grad
        assert torch.isfinite(value).all()
        assert (value >= 0).all()
    assert len(torch.cat(list(scores.values())).unique()) > 50  # they distinguish channels


@pytest.mark.parametrize("name", CRITERIA.names())
def test_same_network_and_batches_same_scores(name, network, units):
    first = observed(build(name, copy.deepcopy(network), units, pixel_loss))
    torch.rand(3)
    second = observed(build(name, copy.deepcopy(network), units, pixel_loss))
    assert all(torch.equal(first[unit], second[unit]) for unit in first)


@pytest.mark.parametrize("name", CRITERIA.names())
def test_reset_forgets(name, network, units):
    network.eval()
    criterion = build(name, network, units, pixel_loss)
    expected = observed(criterion, seeds=(1,))
    criterion.reset()
    observed(criterion, seeds=(0,))
    criterion.reset()
    again = observed(criterion, seeds=(1,))
    assert all(torch.equal(expected[unit], again[unit]) for unit in expected)


@pytest.mark.parametrize("name", CRITERIA.names())
def test_reset_drops_a_step_that_was_never_finished(name, network, units):
    network.eval()
    expected = observed(build(name, network, units, pixel_loss))
    criterion = build(name, network, units, pixel_loss)
    if criterion.needs_data:
        sum(criterion.observe(batch(5)).values()).backward()
    criterion.reset()
    again = observed(criterion)
    assert all(torch.equal(expected[unit], again[unit]) for unit in expected)


@pytest.mark.parametrize("training", [pytest.param(True, marks=pytest.mark.exhaustive), False])
@pytest.mark.parametrize("name", CRITERIA.names())
def test_mixed_precision_keeps_the_order(name, network, units, training):
    network.train(training)
    exact = torch.cat(list(observed(build(name, copy.deepcopy(network), units, pixel_loss)).values()))
    with torch.autocast("cpu", torch.bfloat16):
        scores = torch.cat(list(observed(build(name, network, units, pixel_loss)).values()))
    ranks = torch.stack([exact.argsort().argsort(), scores.argsort().argsort()]).double()
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.9  # gradients near zero are the noise of 8 bits


@pytest.mark.parametrize("name", CRITERIA.names())
def test_observing_leaves_weights_alone(name, network, units):
    before = {key: value.clone() for key, value in network.named_parameters()}
    observed(build(name, network, units, pixel_loss))
    assert all(torch.equal(value, before[key]) for key, value in network.named_parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("name", CRITERIA.names())
def test_prunes_a_network(name, network, units):
    criterion = build(name, network, units, pixel_loss)
    goal, limits = Ratio(units, 0.3, Limits()), Limits()
    done = OneShot().run(Work(network, criterion, units, goal, limits, batches=iter([batch()])))
    total = sum(unit.size for unit in units)
    assert sum(map(len, done.removed.values())) == round(0.3 * total)
    assert all(after >= min(before, Limits().min_width) for before, after in done.widths.values())
    assert network(batch().images).shape == (4, 11, 32, 48)
