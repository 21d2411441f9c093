"""What a table of a stream says, by hand."""

import math

import pytest
import torch

from hardy.engine.stream_table import harmful, worst_window


def counts_of(*hits):
    """Counts of one frame each, of two classes and the extra column: so many hits and misses of class 0."""
    made = torch.zeros(len(hits), 3, 3, dtype=torch.int64)
    for place, (hit, miss) in enumerate(hits):
        made[place, 0, 0], made[place, 0, 1] = hit, miss
    return made


def test_the_worst_window_by_hand():
    counts = counts_of((9, 1), (1, 9), (2, 8), (9, 1))
    worst = worst_window(counts, 2, image_level=True)
    assert worst == (3 / 20, 1)
    assert worst_window(counts, 99, image_level=True) == (21 / 40, 0)
    assert worst_window(counts_of((0, 0), (1, 1)), 1, image_level=True) == (0.5, 1), (
        "a frame without labels has no score"
    )
    assert math.isnan(worst_window(counts[:0], 2).score)
    assert worst_window(counts, 1).score == pytest.approx(0.05), "class 0 has IoU 0.1, and class 1, predicted, has 0"


def test_harmful_is_where_the_source_is_better():
    good, poor, empty = (counts_of(one)[0] for one in ((9, 1), (1, 9), (0, 0)))
    assert harmful(poor, good) is True
    assert harmful(good, poor) is False
    assert harmful(good, good) is False
    assert harmful(empty, empty) is None
