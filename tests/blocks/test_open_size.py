import pytest
import torch
from torch.nn import functional as F

from hardy.blocks.open_size import halved_wider, masked, resized_from_wider


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 2), (6, 7)])
@pytest.mark.parametrize("target", [(1, 5), (2, 3), (9, 14)])
@pytest.mark.parametrize("corners", [False, True])
def test_a_row_and_a_column_more_count_for_nothing(
    size: tuple[int, int], target: tuple[int, int], corners: bool
) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    more = F.pad(x, (0, 1, 0, 1), value=7.0)
    expected = F.interpolate(x, target, mode="bilinear", align_corners=corners)
    narrow = resized_from_wider(more, target, align_corners=corners)
    torch.testing.assert_close(narrow, expected, rtol=1e-12, atol=1e-12)
    wide = resized_from_wider(more, (target[0] + 1, target[1] + 1), wide=True, align_corners=corners)
    torch.testing.assert_close(wide, F.pad(expected, (0, 1, 0, 1)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 2), (2, 3), (5, 8)])
def test_a_convolution_of_what_is_wider_is_wider(size: tuple[int, int]) -> None:
    x, weight = torch.randn(2, 3, *size, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    plain = F.conv2d(x, weight, stride=2, padding=1)
    wide, inside = halved_wider(x)
    more = F.conv2d(wide, weight, stride=2, padding=1)
    assert more.shape[-2:] == inside.shape[-2:] == (plain.shape[2] + 1, plain.shape[3] + 1)
    torch.testing.assert_close(masked(more, inside), F.pad(plain, (0, 1, 0, 1)), rtol=1e-12, atol=1e-12)
    wide, again = halved_wider(masked(more, inside)[:, :3], inside)
    twice = F.conv2d(plain[:, :3], weight, stride=2, padding=1)
    more = F.conv2d(wide, weight, stride=2, padding=1)
    torch.testing.assert_close(masked(more, again), F.pad(twice, (0, 1, 0, 1)), rtol=1e-12, atol=1e-12)
