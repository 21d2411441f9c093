"""Style statistics and AdaIN."""

import pytest
import torch

from hardy.ops.style import adain, statistics


def test_statistics_by_hand():
    features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 2.0]]]], dtype=torch.float64)
    mean, deviation = statistics(features)
    assert mean.tolist() == [[4.0, 2.0]]
    # Unbiased: (9 + 1 + 1 + 9) / 3; a constant channel keeps the root of 1e-5.
    assert deviation[0].tolist() == pytest.approx([(20 / 3 + 1e-5) ** 0.5, 1e-5**0.5], rel=1e-12)


def test_half_precision_is_summed_in_single():
    features = torch.full((1, 1, 64, 64), 30000.0, dtype=torch.float16)
    mean, deviation = statistics(features)
    assert mean.dtype == deviation.dtype == torch.float32
    assert mean.item() == pytest.approx(30000.0, rel=1e-3)


def test_adain_by_hand():
    features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]], dtype=torch.float64)
    own = (20 / 3 + 1e-5) ** 0.5
    given = torch.tensor([[10.0]], dtype=torch.float64)
    expected = [[10 + 2 * (x - 4) / own for x in row] for row in ((1, 3), (5, 7))]
    found = adain(features, given, torch.tensor([[2.0]], dtype=torch.float64))
    torch.testing.assert_close(found[0, 0], torch.tensor(expected, dtype=torch.float64))


def test_adain_gives_the_style_asked_for():
    torch.manual_seed(0)
    features, other = torch.rand(2, 3, 5, 7, dtype=torch.float64), 4 * torch.rand(2, 3, 6, 4, dtype=torch.float64)
    wanted = statistics(other)
    for found, asked in zip(statistics(adain(features, *wanted)), wanted, strict=True):
        torch.testing.assert_close(found, asked, rtol=1e-3, atol=0)  # sigma is not quite the deviation: the 1e-5
    torch.testing.assert_close(adain(features, *statistics(features)), features)
