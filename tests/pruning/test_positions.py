"""Sampled positions: even over rows and columns, each with the same chance, and the same for the same seed."""

import pytest
import torch

from hardy.pruning.positions import sampled


def drawn(sides, most, seed=0):
    return sampled(sides, most, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sides", [(256, 512), (64, 128), (128, 128), (192, 192), (37, 53), (3, 1000), (1000, 3)])
@pytest.mark.parametrize("most", [1, 64, 170])
def test_within_the_map_and_no_more_than_asked(sides, most):
    found = drawn(sides, most)
    assert found.dtype == torch.int64
    assert 0.7 * min(most, sides[0] * sides[1]) <= len(found) <= most
    assert 0 <= int(found.min()) <= int(found.max()) < sides[0] * sides[1]


@pytest.mark.parametrize("sides", [(256, 512), (128, 256), (64, 128), (128, 128), (64, 64), (192, 192)])
def test_all_parts_of_a_map_have_their_share(sides):
    """64 positions of the maps of 512x1024, 512x512 and 768x768 images: many rows and columns, and 2 to 6 in each of
    4 x 4 parts."""
    found = drawn(sides, 64)
    rows, columns = found // sides[1], found % sides[1]
    assert min(len(rows.unique()), len(columns.unique())) > 20
    parts = torch.bincount((rows * 4 // sides[0]) * 4 + columns * 4 // sides[1], minlength=16)
    assert 2 <= int(parts.min()) <= int(parts.max()) <= 6


@pytest.mark.costly
@pytest.mark.slow
def test_every_position_has_the_same_chance():
    """5 x 7 positions, 12 drawn 4,000 times: each comes up with its share within 4.5 standard deviations."""
    generator = torch.Generator().manual_seed(0)
    times = 4_000
    counts = torch.zeros(35)
    each = 0
    for _ in range(times):
        found = sampled((5, 7), 12, generator)
        each = len(found)
        counts += torch.bincount(found, minlength=35)
    expected = times * each / 35
    assert float((counts - expected).abs().max()) < 4.5 * expected**0.5


def test_a_small_map_is_taken_as_it_is():
    assert drawn((4, 16), 64).tolist() == list(range(64))
    assert drawn((50,), 64).tolist() == list(range(50))


def test_a_row_of_tokens_is_cut_into_equal_parts():
    found = drawn((8192,), 64)
    assert (found // 128).tolist() == list(range(64))
    assert len(set((found % 128).tolist())) > 30


def test_the_seed_decides():
    assert torch.equal(drawn((64, 128), 64, 1), drawn((64, 128), 64, 1))
    assert not torch.equal(drawn((64, 128), 64, 1), drawn((64, 128), 64, 2))
