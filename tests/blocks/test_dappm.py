"""Deep aggregation pyramid pooling by its equation, at every size, and with its size left open."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.dappm import DAPPM, WINDOWS, open_scale, scaled


def settled(module: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, its norms as after some training."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2.0)
    return module.double().eval()


def unit(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Batch norm by its formula, ReLU, convolution."""
    norm, _, conv = layers
    scale, shift = (value.view(1, -1, 1, 1) for value in (norm.weight, norm.bias))
    mean, variance = (value.view(1, -1, 1, 1) for value in (norm.running_mean, norm.running_var))
    x = torch.relu((x - mean) / torch.sqrt(variance + norm.eps) * scale + shift)
    return F.conv2d(x, conv.weight, padding=conv.kernel_size[0] // 2)


@pytest.mark.parametrize("size", [(16, 32), (5, 3), (1, 1)])
def test_every_scale_is_refined_with_the_sum_of_those_before(size: tuple[int, int]) -> None:
    pooling = settled(DAPPM(6, 4, 5))
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    levels = [unit(pooling.narrow, x)]
    windows = [F.avg_pool2d(x, 2 * stride + 1, stride, stride) for stride in (2, 4, 8)]
    for index, average in enumerate([*windows, x.mean((2, 3), keepdim=True)]):
        up = F.interpolate(unit(pooling.scales[index], average), size, mode="bilinear", align_corners=False)
        levels.append(unit(pooling.refine[index], up + levels[-1]))
    expected = unit(pooling.join, torch.cat(levels, 1)) + unit(pooling.shortcut, x)
    torch.testing.assert_close(pooling(x), expected)


def test_padding_counts_in_an_average() -> None:
    cell = torch.ones(1, 1, 1, 1)
    averages = [float(level) for level in scaled(cell, [nn.Identity()] * 4)]
    assert averages == pytest.approx([1 / 25, 1 / 81, 1 / 289, 1.0])


@pytest.mark.parametrize("size", [(1, 2), (3, 9), (17, 8), (20, 33)])
def test_with_an_open_size_every_scale_is_the_same(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    scale = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 1)).double()
    for (side, stride), expected in zip(WINDOWS, scaled(x, [scale] * 4), strict=False):
        torch.testing.assert_close(open_scale(x, scale, side, stride), expected)


@pytest.mark.costly
@pytest.mark.slow
def test_a_fixed_size_is_exported_as_plain_pooling() -> None:
    graph = torch.export.export(settled(DAPPM(6, 4, 5)), (torch.zeros(1, 6, 4, 3, dtype=torch.float64),)).graph
    names = [str(node.target) for node in graph.nodes]
    assert not [name for name in names if "matmul" in name or "arange" in name]
    assert sum("avg_pool2d" in name and "adaptive" not in name for name in names) == 3


def test_one_image_with_one_cell_can_be_trained_on() -> None:
    pooling = DAPPM(6, 4, 5)
    before = pooling.scales[3][0].running_mean.clone()
    pooling(torch.rand(1, 6, 1, 1)).sum().backward()
    assert torch.equal(pooling.scales[3][0].running_mean, before)
    pooling(torch.rand(2, 6, 1, 1))
    assert not torch.equal(pooling.scales[3][0].running_mean, before)
