"""Squares of single images ("FG"), against gates that are there for each image."""

import pytest
import torch

from hardy.pruning.criteria.taylor import Taylor
from hardy.pruning.gates import gate_gradients, gate_parameters, gate_sites
from hardy.pruning.samples import SampleGradients
from hardy.pruning.units import find_units


def score(criterion, batches, scale=1.0):
    for batch in batches:
        criterion.network.zero_grad(set_to_none=True)
        (scale * sum(criterion.observe(batch).values())).backward()
        criterion.collect()
    return criterion.scores()


def alone(network, units, batch, pixel_loss, n):
    """dL/dz (G,) of image ``n`` by itself, on frozen norms."""
    sites = gate_sites(network, units)
    parameters = gate_parameters(sites)
    images, labels = batch.images[n : n + 1], batch.labels[n : n + 1]
    loss = sum(network.losses(network.outputs(images), labels, pixel_loss).values())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return gate_gradients(sites, dict(zip(parameters, found, strict=True)), sum(unit.size for unit in units))


@pytest.mark.parametrize("scale", [1.0, 256.0])
def test_the_sum_of_squares_of_each_images_part(toy, draw_batch, pixel_loss, scale):
    """Four images, all labelled, each of its own domain: R is the mean of their losses."""
    toy.eval()
    units = find_units(toy)
    batches = [draw_batch([0, 1, 2, 3], seed) for seed in range(2)]
    expected = 0
    for batch in batches:
        rows = torch.stack([alone(toy, units, batch, pixel_loss, n) for n in range(4)]) / 4
        expected = expected + rows.square().sum(0) / 2
    found = score(Taylor(toy, units, pixel_loss, square="sample"), batches, scale)
    torch.testing.assert_close(torch.cat(list(found.values())), expected, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mean", [True, False])
def test_rows_add_up_to_the_shared_gates_gradient(toy, batch, pixel_loss, training, mean):
    """With batch statistics too, where a sample also acts on the others; the mean differs by the pixels only."""
    toy.train(training)
    units = [unit for unit in find_units(toy) if unit.name in ("mix", "up")]
    sites, count = gate_sites(toy, units), sum(unit.size for unit in units)
    with SampleGradients(sites, count, len(batch), mean=mean) as samples:
        outputs = toy.outputs(batch.images)
    sum(toy.losses(outputs, batch.labels, pixel_loss).values()).backward()
    expected = gate_gradients(sites, {p: p.grad for p in gate_parameters(sites)}, count)
    pixels = torch.tensor([8 * 8] * 14 + [16 * 16] * 9) if mean else 1
    torch.testing.assert_close(samples.rows.sum(0) * pixels, expected, rtol=1e-9, atol=1e-15)
