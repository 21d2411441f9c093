"""Scores against their formulas: eq. 2 and 4 by inserted derivatives."""

import copy
import math

import pytest
import torch

from hardy.errors import InputError
from hardy.pruning.criteria.ior import IoR
from hardy.pruning.criteria.random import Random
from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.gates import by_unit, gate_gradients, gate_parameters, gate_sites
from hardy.pruning.risk import domain_risks
from hardy.pruning.units import find_units
from hardy.seed import seeded
from hardy.types import Batch


def score(criterion, *batches, scale=1.0):
    for batch in batches:
        criterion.network.zero_grad(set_to_none=True)
        (scale * sum(criterion.observe(batch).values())).backward()
        criterion.collect()
    return criterion.scores()


def close(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance)


def jacobian(network, units, batch, pixel_loss):
    """The risks (D,) and their gate gradients (D, G), one backward pass for each domain."""
    sites = gate_sites(network, units)
    parameters = gate_parameters(sites)
    risks, _ = domain_risks(network, batch, pixel_loss)
    count = sum(unit.size for unit in units)
    rows = []
    for risk in risks:
        found = torch.autograd.grad(risk, parameters, retain_graph=True, allow_unused=True)
        rows.append(gate_gradients(sites, dict(zip(parameters, found, strict=True)), count))
    return risks.detach(), torch.stack(rows)


def test_risks_are_those_of_each_domain_alone(toy, batch, pixel_loss):
    toy.eval()
    risks, rows = domain_risks(toy, batch, pixel_loss)
    assert rows.tolist() == [0, 0, 0, 1, 1, 2]
    for domain in range(3):
        part = batch.where(batch.domains == domain)
        alone = sum(toy.losses(toy.outputs(part.images), part.labels, pixel_loss).values())
        torch.testing.assert_close(risks[domain], alone)


def test_risks_include_auxiliary_heads_and_only_domains_present(toy, draw_batch, pixel_loss):
    toy.train()
    batch = draw_batch([4, 1, 4])
    risks, rows = domain_risks(toy, batch, pixel_loss)
    outputs = toy.outputs(batch.images)
    for row, domain in enumerate([1, 4]):
        chosen = batch.domains == domain
        expected = sum(toy.losses(outputs.where(chosen), batch.labels[chosen], pixel_loss).values())
        torch.testing.assert_close(risks[row], expected)
    assert rows.tolist() == [0, 1, 1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("correction", [0, 1])
def test_ior_is_equation_4(toy, draw_batch, pixel_loss, training, correction):
    toy.train(training)
    units = find_units(toy)
    batches = [draw_batch([0, 1, 0, 2, 1, 0], seed) for seed in range(2)]
    expected = 0
    for batch in batches:
        risks, gradients = jacobian(toy, units, batch, pixel_loss)
        apart = risks - risks.mean()
        spread = 2 / (len(risks) - correction) * apart @ (gradients - gradients.mean(0))
        expected = expected + (gradients.mean(0) ** 2 + 0.7 * spread**2) / 2
    ior = IoR(toy, units, pixel_loss, alpha=0.7, variance="sample" if correction else "population")
    close(score(ior, *batches), by_unit(expected, units), rtol=1e-8, atol=1e-18)


def test_variance_term_by_finite_differences(toy, batch, pixel_loss):
    """A gate on the convolution transposed moves its weight and bias alike, so they are scaled."""
    toy.train()
    units = find_units(toy)
    both, mean = IoR(toy, units, pixel_loss), Taylor(toy, units, pixel_loss)
    spread = (score(both, batch)["up"] - score(mean, batch)["up"]).sqrt()
    for channel in (0, 8):
        ends = []
        for step in (1e-5, -1e-5):
            moved = copy.deepcopy(toy)
            with torch.no_grad():
                moved.up.weight[:, channel] *= 1 + step
                moved.up.bias[channel] *= 1 + step
                ends.append(float(domain_risks(moved, batch, pixel_loss)[0].var(correction=0)))
        assert abs(ends[0] - ends[1]) / 2e-5 == pytest.approx(float(spread[channel]), rel=1e-4)


@pytest.mark.parametrize("square", ["before", "after"])
@pytest.mark.parametrize("training", [True, False])
def test_without_alpha_it_is_taylor(toy, draw_batch, pixel_loss, training, square):
    toy.train(training)
    units = find_units(toy)
    batches = [draw_batch([0, 1, 1], seed) for seed in range(3)]
    ior = score(IoR(toy, units, pixel_loss, alpha=0.0, square=square), *batches)
    close(ior, score(Taylor(toy, units, pixel_loss, square=square), *batches), rtol=1e-10, atol=1e-20)


def test_squares_before_and_after_the_mean(toy, draw_batch, pixel_loss):
    units = find_units(toy)
    batches = [draw_batch([0, 1], seed) for seed in range(3)]
    gradients = torch.stack([jacobian(toy, units, batch, pixel_loss)[1].mean(0) for batch in batches])
    before = score(Taylor(toy, units, pixel_loss), *batches)
    after = score(Taylor(toy, units, pixel_loss, square="after"), *batches)
    close(before, by_unit(gradients.square().mean(0), units), rtol=1e-8, atol=1e-20)
    close(after, by_unit(gradients.mean(0).square(), units), rtol=1e-8, atol=1e-20)


@pytest.mark.parametrize("training", [True, False])
def test_equal_risks_leave_the_mean_alone(toy, draw_batch, pixel_loss, training):
    toy.train(training)
    units = find_units(toy)
    one = draw_batch([0, 0])
    twice = Batch(one.images.repeat(2, 1, 1, 1), one.labels.repeat(2, 1, 1), torch.tensor([0, 0, 1, 1]))
    close(
        score(IoR(toy, units, pixel_loss), twice), score(Taylor(toy, units, pixel_loss), twice), rtol=1e-10, atol=1e-20
    )


@pytest.mark.parametrize("training", [True, False])
def test_names_and_order_of_domains_do_not_matter(toy, batch, pixel_loss, training):
    toy.train(training)
    units = find_units(toy)
    renamed = Batch(batch.images, batch.labels, torch.tensor([5, 2, 3])[batch.domains])
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    moved = Batch(batch.images[order], batch.labels[order], batch.domains[order])
    expected = score(IoR(toy, units, pixel_loss), batch)
    close(score(IoR(toy, units, pixel_loss), renamed), expected, rtol=1e-8, atol=1e-18)
    close(score(IoR(toy, units, pixel_loss), moved), expected, rtol=1e-8, atol=1e-18)


@pytest.mark.parametrize("training", [True, False])
def test_doubled_domains_leave_the_population_score(toy, batch, pixel_loss, training):
    toy.train(training)
    units = find_units(toy)
    twice = Batch(
        batch.images.repeat(2, 1, 1, 1), batch.labels.repeat(2, 1, 1), torch.cat([batch.domains, batch.domains + 3])
    )
    expected = score(IoR(toy, units, pixel_loss), batch)
    close(score(IoR(toy, units, pixel_loss), twice), expected, rtol=1e-8, atol=1e-18)


@pytest.mark.parametrize("training", [True, False])
def test_sample_variance_is_n_over_n_minus_1(toy, batch, pixel_loss, training):
    toy.train(training)
    units = find_units(toy)
    mean = score(Taylor(toy, units, pixel_loss), batch)
    population = score(IoR(toy, units, pixel_loss), batch)
    sample = score(IoR(toy, units, pixel_loss, variance="sample"), batch)
    for name in mean:
        expected = 1.5**2 * (population[name] - mean[name])  # three domains
        torch.testing.assert_close(sample[name] - mean[name], expected, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [Taylor, IoR])
def test_scaled_and_accumulated_losses_score_the_same(toy, draw_batch, pixel_loss, training, kind):
    """Mixed precision multiplies the loss, accumulation divides it over several passes before one `collect`."""
    toy.train(training)
    units = find_units(toy)
    batch = draw_batch([0, 1, 1])
    expected = score(kind(toy, units, pixel_loss), batch)
    close(score(kind(toy, units, pixel_loss), batch, scale=1024.0), expected, rtol=1e-10, atol=1e-20)
    parts = kind(toy, units, pixel_loss)
    toy.zero_grad(set_to_none=True)
    for _ in range(2):
        (sum(parts.observe(batch).values()) / 2).backward()
    parts.collect()
    close(parts.scores(), expected, rtol=1e-10, atol=1e-20)


def test_an_overflown_step_counts_for_nothing(toy, batch, pixel_loss):
    units = find_units(toy)
    expected = score(Taylor(toy, units, pixel_loss), batch)
    taylor = Taylor(toy, units, pixel_loss)
    toy.zero_grad(set_to_none=True)
    sum(taylor.observe(batch).values()).backward()
    toy.mix_norm.weight.grad[3] = math.inf
    taylor.collect()
    with pytest.raises(InputError, match="no batch with finite values"):
        taylor.scores()
    close(score(taylor, batch), expected, rtol=1e-12, atol=0)


def test_variance_asks_for_gates_only(toy, batch, pixel_loss):
    toy.train()
    toy.zero_grad(set_to_none=True)
    IoR(toy, find_units(toy), pixel_loss).observe(batch)
    assert all(parameter.grad is None for parameter in toy.parameters())


def test_one_domain_has_no_variance(toy, draw_batch, pixel_loss):
    ior = IoR(toy, find_units(toy), pixel_loss)
    for training in (True, False):
        toy.train(training)
        with pytest.raises(InputError, match="two domains or more: with one the variance of the risks is 0"):
            ior.observe(draw_batch([2, 2]))


def test_alpha_is_not_negative(toy, pixel_loss):
    with pytest.raises(InputError, match=r"alpha: -1\.0 must be 0 or more"):
        IoR(toy, find_units(toy), pixel_loss, alpha=-1.0)


def test_frozen_gates_are_named(toy, batch, pixel_loss):
    toy.mix_norm.weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"'mix_norm\.weight' is frozen"):
        Taylor(toy, find_units(toy), pixel_loss).observe(batch)


def test_random_depends_on_seed_and_name_only(toy, pixel_loss):
    units = find_units(toy)
    first = Random(toy, units, pixel_loss, seed=3).scores()
    torch.rand(5)
    close(
        Random(toy, units[1:], pixel_loss, seed=3).scores(), {u.name: first[u.name] for u in units[1:]}, rtol=0, atol=0
    )
    other = Random(toy, units, pixel_loss, seed=4).scores()
    assert all(not torch.equal(first[name], other[name]) for name in first)
    drawn = torch.cat(list(first.values()))
    even = (torch.arange(len(drawn), dtype=drawn.dtype) + 0.5) / len(drawn)
    assert len(drawn) > 60
    assert float((drawn.sort().values - even).abs().max()) < 1.63 / len(drawn) ** 0.5, "uniform, by Kolmogorov at 1 %"


def test_random_without_a_seed_follows_the_generator_of_the_run(toy, pixel_loss):
    units = find_units(toy)
    draws = []
    for place in (0, 0, 1):
        with seeded(place, "criterion"):
            draws.append(Random(toy, units, pixel_loss).scores()[units[0].name])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
