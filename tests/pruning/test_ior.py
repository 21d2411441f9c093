"""The ways to the variance's derivative agree, and what a gate in several places is divided by."""

import copy

import pytest
import torch
from torch import nn

from hardy.errors import InputError
from hardy.pruning.criteria._observed import divisor
from hardy.pruning.criteria.ior import IoR
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.gates import by_unit, gate_gradients, gate_parameters, gate_sites
from hardy.pruning.risk import domain_risks
from hardy.pruning.units import Member, Unit, find_units


def score(criterion, *batches, scale=1.0):
    for batch in batches:
        criterion.network.zero_grad(set_to_none=True)
        (scale * sum(criterion.observe(batch).values())).backward()
        criterion.collect()
    return criterion.scores()


def close(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-8, atol=1e-18)


def gate_rows(network, units, risks):
    """dR_i/dz (D, G) by one backward pass for each risk."""
    sites = gate_sites(network, units)
    parameters = gate_parameters(sites)
    rows = []
    for risk in risks:
        found = torch.autograd.grad(risk, parameters, retain_graph=True, allow_unused=True)
        rows.append(gate_gradients(sites, dict(zip(parameters, found, strict=True)), sum(u.size for u in units)))
    return torch.stack(rows)


@pytest.mark.parametrize("variance", ["population", "sample"])
def test_the_jacobian_equals_two_passes_on_batch_statistics(toy, batch, pixel_loss, variance):
    toy.train()
    units = find_units(toy)
    two = score(IoR(toy, units, pixel_loss, variance=variance, passes="two"), batch)
    close(score(IoR(toy, units, pixel_loss, variance=variance, passes="jacobian"), batch), two)
    close(score(IoR(toy, units, pixel_loss, variance=variance), batch), two)


@pytest.mark.parametrize("passes", ["auto", "two", "jacobian", "per_domain", "frozen"])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_on_frozen_norms_all_ways_agree(toy, batch, pixel_loss, passes, scale):
    toy.eval()
    units = find_units(toy)
    expected = score(IoR(toy, units, pixel_loss, passes="two"), batch)
    close(score(IoR(toy, units, pixel_loss, passes=passes), batch, scale=scale), expected)


@pytest.mark.parametrize("correction", [0, 1])
def test_per_domain_is_equation_4_with_the_statistics_of_each_domain(toy, draw_batch, pixel_loss, correction):
    toy.train()
    batch = draw_batch([0, 1, 0, 2, 1, 2, 2])
    units = find_units(toy)
    alone = [domain_risks(toy, batch.where(batch.domains == d), pixel_loss)[0][0] for d in range(3)]
    rows, risks = gate_rows(toy, units, alone), torch.stack(alone).detach()
    spread = 2 / (3 - correction) * (risks - risks.mean()) @ rows
    expected = by_unit(rows.mean(0) ** 2 + 0.7 * spread**2, units)
    variance = "sample" if correction else "population"
    ior = IoR(toy, units, pixel_loss, alpha=0.7, variance=variance, passes="per_domain")
    close(score(ior, batch), expected)
    pooled = score(IoR(toy, units, pixel_loss, alpha=0.7, variance=variance, passes="two"), batch)
    assert not torch.allclose(pooled["mix"], expected["mix"], rtol=1e-2)


def test_frozen_is_evaluation_mode_for_batch_norms_only(toy, batch, pixel_loss):
    """The auxiliary head, which runs only while training, still counts; no running statistic moves."""
    toy.train()
    twin = copy.deepcopy(toy)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    expected = score(IoR(twin, find_units(twin), pixel_loss, passes="two"), batch)
    before = toy.mix_norm.running_mean.clone()
    close(score(IoR(toy, find_units(toy), pixel_loss, passes="frozen"), batch), expected)
    assert torch.equal(toy.mix_norm.running_mean, before)
    assert all(module.training for module in toy.modules())


def test_two_passes_by_finite_differences(toy, batch, pixel_loss):
    toy.train()
    units = find_units(toy)
    mean = score(Taylor(toy, units, pixel_loss), batch)["mix"]
    spread = (score(IoR(toy, units, pixel_loss, passes="two"), batch)["mix"] - mean).clamp(min=0).sqrt()
    for channel in (1, 5):
        ends = []
        for step in (1e-5, -1e-5):
            moved = copy.deepcopy(toy)
            with torch.no_grad():
                moved.mix_norm.weight[channel] *= 1 + step
                moved.mix_norm.bias[channel] *= 1 + step
                ends.append(float(domain_risks(moved, batch, pixel_loss)[0].var(correction=0)))
        assert abs(ends[0] - ends[1]) / 2e-5 == pytest.approx(float(spread[channel]), rel=1e-4)


def test_what_the_passes_cannot_do_is_said(toy, batch, draw_batch, pixel_loss):
    toy.train()
    units = find_units(toy)
    with pytest.raises(InputError, match=r"a batch has one image of a domain; raise optim\.batch"):
        IoR(toy, units, pixel_loss, passes="per_domain").observe(batch)
    toy.mix_norm.running_mean = None
    with pytest.raises(InputError, match=r"frozen needs running statistics, and 'mix_norm' has none; use two"):
        IoR(toy, units, pixel_loss, passes="frozen").observe(batch)
    with pytest.raises(InputError, match="two domains or more"):
        IoR(toy, units, pixel_loss, passes="jacobian").observe(draw_batch([1, 1]))


def unit_with(sites):
    names = [f"norm{i}" for i in range(sites)]
    return Unit("a", 1, tuple(Member(name, "out", ((0,),)) for name in names), tuple(names))


def test_divisors_are_those_of_resnet_50():
    """Stages of 3, 4, 6 and 3 blocks and a shortcut each; relative to inner gates 1, 3/4, 3/6 and 1."""
    stages = [unit_with(blocks + 1) for blocks in (3, 4, 6, 3)]
    inner = unit_with(1)
    assert [divisor(inner, "nvidia") / divisor(stage, "nvidia") for stage in stages] == [1, 3 / 4, 3 / 6, 1]
    assert [divisor(unit, "blocks") for unit in (*stages, inner)] == [3, 4, 6, 3, 1]
    assert [divisor(unit, "places") for unit in (*stages, inner)] == [4, 5, 7, 4, 1]
    assert [divisor(unit, "none") for unit in (*stages, inner)] == [1] * 5


@pytest.mark.parametrize("kind", [Taylor, IoR])
@pytest.mark.parametrize("skip", ["places", "blocks", "nvidia"])
def test_skip_divides_the_squared_sum(toy, batch, pixel_loss, kind, skip):
    units = find_units(toy)
    plain = score(kind(toy, units, pixel_loss), batch)
    close(
        score(kind(toy, units, pixel_loss, skip=skip), batch), {u.name: plain[u.name] / divisor(u, skip) for u in units}
    )
    assert len({divisor(unit, skip) for unit in units}) > 1
