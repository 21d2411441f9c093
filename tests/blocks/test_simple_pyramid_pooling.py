import pytest
import torch
from torch.nn import functional as F

from hardy.blocks.simple_pyramid_pooling import SimplePyramidPooling


def test_levels_are_averages_summed_and_smoothed() -> None:
    torch.manual_seed(0)
    block = SimplePyramidPooling(3, 4, grids=(1, 2)).double().eval()
    x = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    norm = (1 + block.smooth[1].eps) ** 0.5  # a batch norm that has seen nothing
    whole = x.mean((2, 3), keepdim=True)
    quarters = torch.stack([torch.stack([q.mean((2, 3)) for q in row.chunk(2, 3)], -1) for row in x.chunk(2, 2)], -2)
    total = torch.zeros(1, 4, 4, 6, dtype=torch.float64)
    for level, pooled in zip(block.levels, (whole, quarters), strict=True):
        level_sum = (torch.einsum("oc,bchw->bohw", level[1].weight[..., 0, 0], pooled) / norm).relu()
        total += F.interpolate(level_sum, (4, 6), mode="bilinear", align_corners=False)
    expected = (F.conv2d(total, block.smooth[0].weight, padding=1) / norm).relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_one_image_of_any_size_can_train_it(size: tuple[int, int]) -> None:
    block = SimplePyramidPooling(3, 4).train()
    if size == (1, 1):  # the convolution after the sum has a batch norm of its own, which needs two values
        block.smooth.eval()
    assert block(torch.rand(1, 3, *size)).shape == (1, 4, *size)
