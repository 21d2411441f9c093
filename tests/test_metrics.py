"""Confusion counts and the scores read from them, by hand and against independent references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardy import metrics
from hardy.metrics import confusion, scores

WAYS = [metrics._by_numpy, metrics._by_torch]
"""The CPU's and the GPU's way of counting: both run anywhere."""


def maps(seed, classes, shape, ignored=0.2):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, shape)
    labels[draw.random(shape) < ignored] = 255
    return torch.from_numpy(draw.integers(0, classes, shape)), torch.from_numpy(labels)


def test_counts_by_hand():
    labels = torch.tensor([[0, 0, 1], [2, 255, 2]])
    predictions = torch.tensor([[0, 1, 1], [0, 2, 2]])
    wanted = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    assert torch.equal(confusion(predictions, labels, 3), wanted)
    for way in WAYS:
        assert torch.equal(way(predictions, labels, 3).view(3, 3), wanted)


def test_scores_by_hand():
    found = scores(torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 1]]))
    assert found.iou == (1 / 3, 1 / 2, 1 / 2)
    assert found.miou == pytest.approx(4 / 9, abs=1e-15)
    assert found.pixel_accuracy == 3 / 5


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(0, 40), st.sampled_from([0.0, 0.3, 1.0]))
def test_counts_equal_those_of_torchmetrics(seed, classes, pixels, ignored):
    from torchmetrics.classification import MulticlassConfusionMatrix  # a second or two, which others need not wait

    predictions, labels = maps(seed, classes, (2, pixels), ignored)
    reference = MulticlassConfusionMatrix(classes, ignore_index=255)(predictions, labels) if pixels else 0
    for way in WAYS:
        counted = way(predictions, labels, classes).view(classes, classes)
        assert counted.dtype == torch.int64
        assert torch.equal(counted, torch.zeros(classes, classes, dtype=torch.int64) + reference)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 30))
def test_mean_iou_equals_a_loop_over_sets_of_pixels(seed, classes, pixels):
    predictions, labels = maps(seed, classes, (3, pixels))
    found = scores(confusion(predictions, labels, classes))
    truth, guess = labels.numpy().ravel(), predictions.numpy().ravel()
    ious, hits, counted = [], 0, 0
    for label in range(classes):
        marked = {i for i in range(truth.size) if truth[i] == label}
        claimed = {i for i in range(truth.size) if guess[i] == label and truth[i] != 255}
        hits, counted = hits + len(marked & claimed), counted + len(marked)
        ious.append(len(marked & claimed) / len(marked | claimed) if marked | claimed else math.nan)
    np.testing.assert_allclose(found.iou, ious, rtol=1e-12, equal_nan=True)
    np.testing.assert_allclose(found.miou, np.nanmean(ious) if counted else math.nan, rtol=1e-12, equal_nan=True)
    np.testing.assert_allclose(found.pixel_accuracy, hits / counted if counted else math.nan, equal_nan=True)


def test_a_class_that_occurs_nowhere_is_undefined_and_does_not_count():
    found = scores(torch.tensor([[3, 0, 0], [1, 4, 0], [0, 0, 0]]))
    assert math.isnan(found.iou[2])
    assert found.miou == pytest.approx((3 / 4 + 4 / 5) / 2, abs=1e-15)


def test_a_class_that_is_predicted_but_nowhere_true_scores_nothing_and_counts():
    found = scores(torch.tensor([[3, 1], [0, 0]]))
    assert found.iou == (3 / 4, 0.0)
    assert found.miou == 3 / 8


def test_nothing_measured_is_undefined():
    found = scores(torch.zeros(4, 4, dtype=torch.int64))
    assert math.isnan(found.miou)
    assert math.isnan(found.pixel_accuracy)
    assert all(math.isnan(iou) for iou in found.iou)


def test_counts_of_a_large_set_are_exact():
    count = 2**53 - 1  # the largest odd number that float64 holds
    found = scores(torch.tensor([[count, 0], [0, 1]]))
    assert found.iou == (1.0, 1.0)
