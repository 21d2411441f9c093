"""Which images the buffer keeps, of which domain, and in what form."""

import math

import torch

from hardy.adaptation._exemplars import LARGEST, Exemplars
from hardy.seed import seeded


def image(seed=0, height=2, width=3):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def held(buffer):
    """The scores by domain."""
    found = {}
    for place, score in zip(buffer.places.tolist(), buffer.scores.tolist(), strict=True):
        if place >= 0:
            found.setdefault(place, []).append(score)
    return {place: sorted(scores) for place, scores in found.items()}


def test_one_domain_keeps_its_hardest():
    buffer = Exemplars(3)
    assert [buffer.push(image(), 0, score) for score in (5, 1, 3, 2, 0.5, 9)] == [True] * 4 + [False, True]
    assert held(buffer) == {0: [3, 5, 9]}


def test_each_domain_has_its_share_and_others_give_theirs_back():
    buffer = Exemplars(4)
    for score in (1, 2, 3, 4):
        buffer.push(image(), 0, score)
    assert buffer.push(image(), 1, 0.1)
    assert held(buffer) == {0: [3, 4], 1: [0.1]}
    buffer.push(image(), 1, 0.2)
    assert not buffer.push(image(), 1, 0.05)
    assert buffer.push(image(), 2, 7)  # ceil(4 / 3) = 2 for each, and none is free: one of two gives up one
    assert held(buffer) == {0: [4], 1: [0.1, 0.2], 2: [7]}
    assert not buffer.push(image(), 2, 6), "no other has two more"
    buffer.drop(1)
    assert held(buffer) == {0: [4], 2: [7]}


def test_images_come_back_in_8_bits_and_at_their_size():
    buffer = Exemplars(2)
    buffer.push(image(0), 4, 1)
    buffer.push(image(1, 5, 7), 4, 2)
    for at, wanted in enumerate((image(0), image(1, 5, 7))):
        torch.testing.assert_close(buffer.image(at)[0], wanted, rtol=0, atol=0.5 / 255 + 1e-6)
    with seeded(0, "test"):
        drawn = buffer.drawn(5)
    assert sorted(tuple(one.shape) for one, _ in drawn) == [(1, 3, 2, 3), (1, 3, 5, 7)]
    assert [place for _, place in drawn] == [4, 4]
    assert len(buffer.drawn(1)) == 1


def test_an_image_that_is_too_large_is_made_smaller_with_its_shape_kept():
    buffer = Exemplars(1)
    buffer.push(torch.full((3, 600, 1200), 0.5), 0, 1)
    height, width = buffer.image(0).shape[-2:]
    assert height * width <= LARGEST < (height + 1) * (width + 2)
    assert (height, width) == (256, 512)
    assert buffer.image(0).sub(0.5).abs().max() <= 0.5 / 255 + 1e-6


def test_neither_a_score_that_is_no_number_nor_an_image_without_a_buffer_is_stored():
    assert not Exemplars(1).push(image(), 0, math.nan)
    assert not Exemplars(0).push(image(), 0, 1)
    assert Exemplars(0).drawn(3) == []
