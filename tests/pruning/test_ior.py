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


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("passes", ["two", "jacobian", "per_domain", "frozen", "auto"])
def test_scaled_by_the_risk_it_is_four_times_the_square_of_the_deviation(toy, batch, pixel_loss, passes, correction):
    """4 alpha (dsigma/dz)^2, with sigma differentiated by itself; a network of twice the risk has the same order."""
    toy.eval()
    units = find_units(toy)
    risks, _ = domain_risks(toy, batch, pixel_loss)
    mean, sigma = gate_rows(toy, units, [risks.mean(), risks.std(correction=correction)])
    expected = by_unit(mean**2 + 0.3 * 4 * sigma**2, units)
    options = {"alpha": 0.3, "scale": "risk", "passes": passes}
    variance = "sample" if correction else "population"
    close(score(IoR(toy, units, pixel_loss, variance=variance, **options), batch), expected)
    doubled = score(IoR(toy, units, lambda x, y: 2 * pixel_loss(x, y), variance=variance, **options), batch)
    close({name: values / 4 for name, values in doubled.items()}, expected)


def test_equal_risks_have_no_second_term_however_it_is_scaled(toy, draw_batch, pixel_loss):
    toy.eval()
    same = draw_batch([0, 0])
    twice = type(same)(same.images.repeat(2, 1, 1, 1), same.labels.repeat(2, 1, 1), torch.tensor([0, 0, 1, 1]))
    units = find_units(toy)
    for scale in ("none", "risk"):
        ior = IoR(toy, units, pixel_loss, alpha=1e6, scale=scale)
        expected = score(Taylor(toy, units, pixel_loss), twice)
        for name, values in score(ior, twice).items():
            torch.testing.assert_close(values, expected[name], rtol=1e-6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("passes", ["auto", "two", "per_domain", "frozen"])
@pytest.mark.parametrize("scale", [1.0, 64.0])
def test_accumulated_batches_are_one_large_batch(toy, draw_batch, pixel_loss, passes, scale):
    """On frozen norms and with the same pixels in every image two batches of 6 are one of 12."""
    toy.eval()
    parts = [draw_batch([0, 1, 0, 2, 1, 2], seed=seed) for seed in range(4)]
    for part in parts:
        part.labels[part.labels == 255] = 0  # a domain has the same number of pixels in each batch
    together = [joined(parts[0], parts[1]), joined(parts[2], parts[3])]
    units = find_units(toy)
    expected = score(IoR(toy, units, pixel_loss, alpha=5.0, passes="two"), *together)
    ior = IoR(toy, units, pixel_loss, alpha=5.0, passes=passes, accumulate=2)
    close(score(ior, *parts, scale=scale), expected)
    variances = [domain_risks(toy, batch, pixel_loss)[0].detach().var(correction=0) for batch in together]
    assert ior.readings()["risk_variance"] == pytest.approx(float(sum(variances) / 2))
    single = score(IoR(toy, units, pixel_loss, alpha=5.0, passes=passes), *parts)
    assert not torch.allclose(single["mix"], expected["mix"], rtol=0.05)


def test_accumulated_on_batch_statistics_is_the_mean_of_the_jacobians(toy, draw_batch, pixel_loss):
    toy.train()
    parts = [draw_batch([0, 1, 0, 1], seed=0), draw_batch([0, 2, 1, 0], seed=1), draw_batch([0, 1], seed=2)]
    units = find_units(toy)
    found = [domain_risks(toy, part, pixel_loss)[0] for part in parts[:2]]
    (a0, a1), (b0, b1, b2) = (gate_rows(toy, units, risks) for risks in found)
    (r0, r1), (s0, s1, s2) = (risks.detach() for risks in found)
    risks = torch.stack([(r0 + s0) / 2, (r1 + s1) / 2, s2])
    rows = torch.stack([(a0 + b0) / 2, (a1 + b1) / 2, b2])
    spread = 2 / 3 * (risks - risks.mean()) @ rows
    ior = IoR(toy, units, pixel_loss, accumulate=2)  # the third batch is a rest that does not count
    close(score(ior, *parts), by_unit(rows.mean(0) ** 2 + spread**2, units))


@pytest.mark.parametrize("options", [{}, {"scale": "risk", "alpha": 9.0}, {"accumulate": 2}, {"square": "after"}])
def test_gradients_of_another_criterion(toy, draw_batch, pixel_loss, options):
    """What one criterion measured gives the scores of a criterion with other options, which sees no batch."""
    toy.train()
    parts = [draw_batch([0, 1, 0, 1], seed=seed) for seed in range(4)]
    units = find_units(toy)
    first, other = IoR(toy, units, pixel_loss), IoR(toy, units, pixel_loss, **options)
    for part in parts:
        other.add(*first.measured(part))
    close(other.scores(), score(IoR(toy, units, pixel_loss, **options), *parts))
    with pytest.raises(InputError, match="no batch"):
        first.scores()


def test_accumulated_taylor_squares_the_mean_of_each_group(toy, draw_batch, pixel_loss):
    toy.eval()
    parts = [draw_batch([0, 1], seed=seed) for seed in range(4)]
    units = find_units(toy)
    rows = [gate_rows(toy, units, [domain_risks(toy, part, pixel_loss)[0].mean()])[0] for part in parts]
    expected = by_unit((((rows[0] + rows[1]) / 2) ** 2 + ((rows[2] + rows[3]) / 2) ** 2) / 2, units)
    close(score(Taylor(toy, units, pixel_loss, accumulate=2), *parts), expected)
    with pytest.raises(InputError, match=r"Taylor\.accumulate: 2 has no effect with square after"):
        Taylor(toy, units, pixel_loss, accumulate=2, square="after")


def joined(one, other):
    return type(one)(*(torch.cat([getattr(one, n), getattr(other, n)]) for n in ("images", "labels", "domains")))
