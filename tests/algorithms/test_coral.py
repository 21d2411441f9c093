"""CORAL against values by hand, against numpy, and where nothing is left to align."""

import numpy as np
import pytest
import torch

import hardy
from hardy.algorithms.coral import CORAL
from hardy.algorithms.erm import ERM
from hardy.errors import InputError
from hardy.types import Batch


def coloured(colours, domains):
    """Pictures of one pixel of these colours, all of class 0."""
    images = torch.tensor(colours, dtype=torch.float64).view(-1, 3, 1, 1)
    return Batch(images, torch.zeros(len(colours), dtype=torch.long), torch.tensor(domains))


def softmax_losses(logits, labels):
    """The cross-entropy of each row, in numpy."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]


def expected(features, risks):
    """Mean risk and moment distance of domains, given their features (n, C), by numpy alone."""
    pairs = []
    for i in range(len(features)):
        for j in range(i):
            means = (features[i].mean(0) - features[j].mean(0)) ** 2
            covariances = (np.cov(features[i].T) - np.cov(features[j].T)) ** 2
            pairs.append(means.mean() + covariances.mean())
    return np.mean(risks), np.mean(pairs)


def test_by_hand(pictures, loss):
    """Reds 0 and 1 against 0 and 0: means differ by 1/2 in one of 3, covariances by 1/2 in one of 9 elements."""
    batch = coloured([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], [0, 0, 1, 1])
    terms = CORAL(pictures, loss)(batch)
    assert list(terms) == ["classification", "coral"]
    assert terms["coral"].item() == pytest.approx(1 / 4 / 3 + 1 / 4 / 9, abs=1e-15)
    assert CORAL(pictures, loss, weight=3.0)(batch)["coral"].item() == pytest.approx(1 / 3, abs=1e-15)


def test_three_unequal_domains_of_pictures_agree_with_numpy(pictures, draw_batch, loss):
    domains = [2, 0, 1, 0, 2, 1, 0, 2, 2]
    batch = draw_batch(domains)
    terms = CORAL(pictures, loss)(batch)
    x = batch.images.mean((2, 3)).numpy()
    weight, bias = pictures.head.weight.detach().numpy(), pictures.head.bias.detach().numpy()
    rows = [[i for i, domain in enumerate(domains) if domain == d] for d in range(3)]
    risks = [softmax_losses(x[r] @ weight.T + bias, batch.labels.numpy()[r]).mean() for r in rows]
    risk, apart = expected([x[r] for r in rows], risks)
    assert terms["classification"].item() == pytest.approx(risk, rel=1e-13)
    assert terms["coral"].item() == pytest.approx(apart, rel=1e-12)


def test_scenes_are_aligned_cell_by_cell_in_their_embedding(scenes, draw_batch, loss):
    domains = [1, 0, 1]
    batch = draw_batch(domains, size=(4, 6))
    terms = CORAL(scenes, loss)(batch)
    x = scenes.outputs(batch.images).embedding.detach().permute(0, 2, 3, 1).numpy()
    _, apart = expected([x[[1]].reshape(-1, 5), x[[0, 2]].reshape(-1, 5)], [0.0])
    assert terms["coral"].item() == pytest.approx(apart, rel=1e-12)
    alone = [ERM(scenes, loss)(batch.where(batch.domains == d))["segmentation"] for d in (0, 1)]
    assert terms["segmentation"].item() == pytest.approx(sum(alone).item() / 2, rel=1e-13)


def test_equal_domains_leave_the_risk_alone(pictures, scenes, draw_batch, loss, total):
    for network, size in ((pictures, None), (scenes, (3, 3))):
        one = draw_batch([0, 0, 0], size=size)
        batch = Batch(one.images.repeat(2, 1, 1, 1), torch.cat([one.labels] * 2), torch.tensor([0, 0, 0, 4, 4, 4]))
        terms = CORAL(network, loss, weight=100.0)(batch)
        assert terms["coral"].item() == 0
        assert total(terms) == pytest.approx(total(ERM(network, loss)(batch)), rel=1e-14)


def test_without_weight_it_is_erm_on_a_balanced_batch(pictures, draw_batch, loss, total):
    batch = draw_batch([0, 1, 2, 2, 1, 0])
    assert total(CORAL(pictures, loss, weight=0.0)(batch)) == pytest.approx(
        total(ERM(pictures, loss)(batch)), rel=1e-14
    )


def test_some_cells_stand_for_all(scenes, draw_batch, loss):
    batch = draw_batch([0, 1], size=(40, 40))

    def distance(seed, positions):
        torch.manual_seed(seed)
        return CORAL(scenes, loss, positions=positions)(batch)["coral"].item()

    assert distance(0, 64) == distance(0, 64) != distance(1, 64)
    assert distance(0, 1600) == distance(1, 1600) == distance(2, 5000)
    assert distance(0, 800) == pytest.approx(distance(0, 1600), rel=0.2)


def test_its_gradient_is_that_of_its_value(scenes, draw_batch, loss):
    batch = draw_batch([0, 1, 1], size=(2, 3))
    algorithm = CORAL(scenes, loss)

    def value(images):
        return algorithm(Batch(images, batch.labels, batch.domains))["coral"]

    assert torch.autograd.gradcheck(value, batch.images.requires_grad_())


def test_moments_are_exact_under_autocast(pictures, draw_batch, loss):
    batch = draw_batch([0, 1, 0, 1, 1])
    algorithm = CORAL(pictures.float(), loss)
    single = Batch(batch.images.float(), batch.labels, batch.domains)
    exact = algorithm(single)
    with torch.autocast("cpu", torch.bfloat16):
        found = algorithm(single)
    assert torch.equal(found["coral"], exact["coral"])
    assert not torch.equal(found["classification"], exact["classification"])  # it was on


def test_what_cannot_be_aligned_is_refused(pictures, draw_batch, loss):
    algorithm = CORAL(pictures, loss)
    with pytest.raises(InputError, match=r"data.sources names 1; name 2 or more, or use erm"):
        algorithm.check(1, 64)
    with pytest.raises(
        InputError, match=r"optim.batch: 5 images at a time are fewer than two for each of the 3 domains"
    ):
        algorithm.check(3, 5)
    algorithm.check(3, 6)
    with pytest.raises(InputError, match="a batch holds images of 1"):
        algorithm(draw_batch([1, 1]))
    with pytest.raises(InputError, match="a single sample"):
        algorithm(draw_batch([0, 1, 1]))
    silent = hardy.wrap(torch.nn.Conv2d(3, 3, 1).double(), pictures.label_space).double()
    with pytest.raises(InputError, match="Wrapped gives none; wrap the module with embedding="):
        CORAL(silent, loss)(draw_batch([0, 1], size=(2, 2)))
    for options in ({"weight": -1.0}, {"positions": 1}):
        with pytest.raises(InputError, match="out of range"):
            CORAL(pictures, loss, **options)
