"""Parameters and multiply-accumulates by the formulas of their papers, sizes, and what each block adds up."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.basic_block import BasicBlock
from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.depthwise_separable import DepthwiseSeparable
from hardy.blocks.inverted_residual import InvertedResidual
from hardy.blocks.norm_act_conv import NormActConv
from hardy.blocks.pyramid_pooling import PyramidPooling
from hardy.ops.cost import gmacs

M, N = 3, 16  # channels in, channels out


@pytest.mark.parametrize(
    ("block", "weights"),
    [
        (ConvNormAct(M, N), 9 * M * N),
        (ConvNormAct(M, N, kernel=7), 49 * M * N),
        (ConvNormAct(M, M, groups=M), 9 * M),
        (NormActConv(M, N, kernel=3), 9 * M * N),
        (DepthwiseSeparable(M, N), 9 * M + M * N),
        (InvertedResidual(M, N, expansion=6), 6 * M * M + 9 * 6 * M + 6 * M * N),
        (InvertedResidual(M, N, expansion=None), 9 * M + M * N),
        (InvertedResidual(M, N, expansion=4, kernel=5), 4 * M * M + 25 * 4 * M + 4 * M * N),
        (BasicBlock(M, N), 9 * M * N + 9 * N * N + M * N),
        (BasicBlock(M, M), 18 * M * M),
    ],
)
def test_cost_per_pixel_is_the_number_of_weights(block: nn.Module, weights: int) -> None:
    norms = sum(2 * layer.num_features for layer in block.modules() if isinstance(layer, nn.BatchNorm2d))
    assert sum(parameter.numel() for parameter in block.parameters()) == weights + norms
    assert gmacs(block, (8, 12)) * 1e9 == pytest.approx(weights * 8 * 12)


@pytest.mark.parametrize(
    "options", [{"expansion": None}, {"expansion": None, "kernel": 5}, {"expansion": 4, "kernel": 5}]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_an_inverted_residual_costs_what_its_formula_says(options: dict[str, int | None], stride: int) -> None:
    block = InvertedResidual(M, N, stride=stride, **options)  # type: ignore[arg-type]
    cost = InvertedResidual.cost(M, N, (17, 23), stride=stride, **options)  # type: ignore[arg-type]
    assert cost.weights == sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Conv2d))
    assert cost.macs == pytest.approx(gmacs(block, (17, 23)) * 1e9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(16, 24), (17, 23)])
@pytest.mark.parametrize(
    "make",
    [
        lambda stride: ConvNormAct(M, N, stride=stride),
        lambda stride: ConvNormAct(M, N, kernel=1, stride=stride),
        lambda stride: ConvNormAct(M, N, kernel=5, stride=stride),
        lambda stride: ConvNormAct(M, N, stride=stride, dilation=4),
        lambda stride: DepthwiseSeparable(M, N, stride=stride),
        lambda stride: InvertedResidual(M, N, stride=stride),
        lambda stride: InvertedResidual(M, N, stride=stride, expansion=None, kernel=5),
        lambda stride: BasicBlock(M, N, stride=stride),
    ],
)
def test_size_is_divided_by_the_stride_and_rounded_up(
    make: Callable[[int], nn.Module], size: tuple[int, int], stride: int
) -> None:
    block = make(stride)
    assert block(torch.rand(2, M, *size)).shape == (2, N, -(-size[0] // stride), -(-size[1] // stride))


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(AssertionError, match="even"):
        ConvNormAct(M, N, kernel=2)


def test_inverted_residual_adds_its_input_only_where_shapes_agree() -> None:
    x = torch.rand(1, N, 8, 8)
    for block, adds in [(InvertedResidual(N, N), True), (InvertedResidual(N, N, stride=2), False)]:
        block.eval()
        nn.init.zeros_(block.project[0].weight)
        assert torch.equal(block(x), x if adds else torch.zeros(1, N, 4, 4))


def test_basic_block_is_before_its_last_relu() -> None:
    block = BasicBlock(N, N).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, N, 8, 8)
    assert torch.equal(block(x), x)


def test_pyramid_pooling_of_a_constant_map_has_constant_levels() -> None:
    pooling = PyramidPooling(8, 4, grids=(1, 2)).eval()
    x = torch.ones(1, 8, 6, 9)
    levels = [x, *(branch(torch.ones(1, 8, 1, 1)).expand(1, 4, 6, 9) for branch in pooling.branches)]
    torch.testing.assert_close(pooling(x), pooling.join(torch.cat(levels, dim=1)))


def test_pyramid_pooling_averages_over_its_grid() -> None:
    pooling = PyramidPooling(4, 4, grids=(2,)).eval()
    x = torch.rand(1, 4, 4, 6)
    cells = F.avg_pool2d(x, (2, 3))
    level = F.interpolate(pooling.branches[0](cells), (4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pooling(x), pooling.join(torch.cat([x, level], dim=1)))
