"""Where the ReLUs sit, and the names that checkpoints know."""

import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.double_bottleneck import DoubleBottleneck
from hardy.blocks.residual_stage import ResidualStage


def test_a_relu_stands_between_blocks_and_none_at_the_end() -> None:
    stage = ResidualStage(4, 4, 2).eval()
    for block in (stage[0], stage[2]):
        nn.init.zeros_(block.conv2.weight)
    nn.init.constant_(stage[2].bn2.bias, -3.0)
    x = torch.tensor([-2.0, 1.0]).view(1, 1, 1, 2).expand(1, 4, 1, 2)
    assert torch.equal(stage(x), torch.relu(x) - 3.0)


def test_only_the_first_block_strides_and_blocks_are_numbered_from_0() -> None:
    stage = ResidualStage(4, 6, 3, stride=2)
    assert stage(torch.rand(2, 4, 9, 7)).shape == (2, 6, 5, 4)
    assert {name.partition(".")[0] for name in stage.state_dict()} == {"0", "1", "2"}
    assert "0.downsample.0.weight" in stage.state_dict()


def test_double_bottleneck_by_its_formula() -> None:
    torch.manual_seed(0)
    block = DoubleBottleneck(4, 6, stride=2).double().eval()
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    keep = (1 + block.bn1.eps) ** -0.5  # a fresh norm divides by sqrt(1 + eps)
    y = torch.relu(F.conv2d(x, block.conv1.weight) * keep)
    y = torch.relu(F.conv2d(y, block.conv2.weight, stride=2, padding=1) * keep)
    y = F.conv2d(y, block.conv3.weight) * keep
    torch.testing.assert_close(block(x), y + F.conv2d(x, block.downsample[0].weight, stride=2) * keep)
    assert [block.conv1.out_channels, block.conv2.out_channels] == [3, 3]
    assert isinstance(DoubleBottleneck(6, 6).downsample, nn.Identity)
