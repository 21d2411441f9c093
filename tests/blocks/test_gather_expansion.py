"""BiSeNetV2's blocks by the formulas of its figures 4 to 6."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.bilateral_aggregation import BilateralAggregation
from hardy.blocks.context_embedding import ContextEmbedding
from hardy.blocks.gather_expansion import GatherExpansion

KEEP = (1 + 1e-5) ** -0.5
"""A fresh norm divides by sqrt(1 + eps)."""


def conv(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The convolution and the fresh norm behind it."""
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding, groups=layer.groups) * KEEP


@pytest.mark.parametrize(("stride", "out_channels"), [(1, 4), (2, 5)])
def test_gather_expansion_by_its_formula(stride: int, out_channels: int) -> None:
    torch.manual_seed(0)
    block = GatherExpansion(4, out_channels, stride=stride).double().eval()
    x = torch.randn(1, 4, 7, 9, dtype=torch.float64)
    y = conv(block.expand[0][0], torch.relu(conv(block.gather[0], x)))
    y = torch.relu(y if stride == 1 else conv(block.expand[1][0], y))
    skip = x if stride == 1 else conv(block.shortcut[1][0], conv(block.shortcut[0][0], x))
    torch.testing.assert_close(block(x), torch.relu(conv(block.project[0], y) + skip))
    assert block(x).shape == (1, out_channels, -(-7 // stride), -(-9 // stride))
    assert {layer.out_channels for layer in block.expand.modules() if isinstance(layer, nn.Conv2d)} == {24}


def test_another_width_at_stride_1_is_refused() -> None:
    with pytest.raises(AssertionError, match="stride 1"):
        GatherExpansion(4, 5)


def test_context_embedding_adds_the_mean_of_the_map() -> None:
    torch.manual_seed(0)
    block = ContextEmbedding(3).double().eval()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    mean = x.mean((2, 3), keepdim=True) * KEEP
    embedded = torch.relu(conv(block.context[1], mean))
    torch.testing.assert_close(block(x), torch.relu(conv(block.mix[0], x + embedded)))


def test_one_image_can_be_trained_on() -> None:
    block = ContextEmbedding(3)
    block(torch.rand(1, 3, 4, 5)).sum().backward()
    assert block.context[0].num_batches_tracked == 0


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
def test_each_branch_is_weighed_by_the_other(upsample: str) -> None:
    torch.manual_seed(0)
    block = BilateralAggregation(3, upsample=upsample).double().eval()
    detail = torch.randn(1, 3, 9, 13, dtype=torch.float64)
    semantic = torch.randn(1, 3, 3, 4, dtype=torch.float64)

    def separable(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(conv(layers[0][0], x), layers[1].weight)

    def up(x: torch.Tensor) -> torch.Tensor:
        if upsample == "bilinear":
            return F.interpolate(x, (9, 13), mode="bilinear", align_corners=False)
        rows, columns = torch.arange(9) // 4, torch.arange(13) // 4
        return x[:, :, rows][..., columns]

    fine = separable(block.detail_fine, detail) * torch.sigmoid(up(conv(block.semantic_fine[0], semantic)))
    coarse = F.avg_pool2d(conv(block.detail_coarse[0][0], detail), 3, 2, 1)
    coarse = coarse * torch.sigmoid(separable(block.semantic_coarse, semantic))
    expected = torch.relu(conv(block.mix[0], fine + up(coarse)))
    torch.testing.assert_close(block(detail, semantic), expected)
