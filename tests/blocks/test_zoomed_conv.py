import pytest
import torch
from torch.nn import functional as F

from hardy.blocks.zoomed_conv import ZoomedConv
from hardy.ops.cost import gmacs


def test_it_halves_by_means_of_four_and_comes_back_before_its_relu() -> None:
    torch.manual_seed(0)
    block = ZoomedConv(3, 4, repeats=2).double().eval()
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    first, second = block.layers
    norm = (1 + first[1].eps) ** 0.5  # a batch norm that has seen nothing
    small = F.avg_pool2d(x, 2)
    small = (F.conv2d(small, first[0].weight, padding=1) / norm).relu()
    small = F.conv2d(small, second[0].weight, padding=1) / norm
    expected = F.interpolate(small, (6, 8), mode="bilinear", align_corners=False).relu()
    torch.testing.assert_close(block(x), expected)


def test_at_stride_2_it_stays_small() -> None:
    block = ZoomedConv(3, 4, stride=2).eval()
    x = torch.rand(1, 3, 6, 8)
    torch.testing.assert_close(block(x), block.layers(F.avg_pool2d(x, 2)).relu())


@pytest.mark.parametrize("stride", [1, 2])
def test_the_published_form_rounds_down_and_resizes_from_corner_to_corner(stride: int) -> None:
    block = ZoomedConv(3, 4, stride=stride, published=True).eval()
    x = torch.rand(1, 3, 5, 7)
    small = block.layers(F.interpolate(x, (2, 3), mode="bilinear", align_corners=True))
    expected = small if stride == 2 else F.interpolate(small, (5, 7), mode="bilinear", align_corners=True)
    torch.testing.assert_close(block(x), expected.relu())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 2), (7, 9)])
def test_any_size_is_divided_by_the_stride_and_rounded_up(size: tuple[int, int], stride: int) -> None:
    shape = ZoomedConv(3, 4, stride=stride).eval()(torch.rand(1, 3, *size)).shape
    assert shape == (1, 4, -(-size[0] // stride), -(-size[1] // stride))


def test_it_costs_a_quarter_of_a_plain_convolution() -> None:
    assert gmacs(ZoomedConv(3, 4), (8, 12)) * 1e9 == pytest.approx(9 * 3 * 4 * 8 * 12 / 4)


def test_one_image_can_train_it_where_one_cell_would_be_left() -> None:
    assert ZoomedConv(3, 4, repeats=2).train()(torch.rand(1, 3, 2, 2)).shape == (1, 4, 2, 2)
