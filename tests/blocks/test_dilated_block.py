"""RegSeg's block by its formula, and how far it sees."""

import torch
from torch.nn import functional as F

from hardy.blocks.dilated_block import DilatedBlock
from hardy.blocks.squeeze_excitation import SqueezeExcitation

KEEP = (1 + 1e-5) ** -0.5
"""A fresh norm divides by sqrt(1 + eps)."""


def test_squeeze_and_excitation_by_hand() -> None:
    block = SqueezeExcitation(2, 1)
    block.squeeze.weight.data = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    block.squeeze.bias.data = torch.tensor([0.5])
    block.excite.weight.data = torch.tensor([2.0, -2.0]).view(2, 1, 1, 1)
    block.excite.bias.data = torch.zeros(2)
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 1.0]]]])  # means 2 and 0.5: 2 - 0.5 + 0.5 = 2, then 4 and -4
    expected = x * torch.sigmoid(torch.tensor([4.0, -4.0])).view(1, 2, 1, 1)
    torch.testing.assert_close(block(x), expected)


def test_dilated_block_by_its_formula() -> None:
    torch.manual_seed(0)
    block = DilatedBlock(8, 32, (1, 3), 2).double().eval()
    x = torch.randn(2, 8, 9, 11, dtype=torch.float64)
    y = torch.relu(F.conv2d(x, block.spread[0].weight) * KEEP)
    near = F.conv2d(y[:, :16], block.filters[0].weight, padding=1)
    far = F.conv2d(y[:, 16:], block.filters[1].weight, padding=3, dilation=3)
    y = block.weigh(torch.relu(torch.cat([near, far], 1) * KEEP))
    total = (F.conv2d(y, block.join[0].weight) + F.conv2d(x, block.shortcut[0].weight)) * KEEP
    torch.testing.assert_close(block(x), torch.relu(total))


def test_a_stride_averages_in_the_shortcut_and_rounds_up() -> None:
    torch.manual_seed(0)
    block = DilatedBlock(16, 16, (1,), 4, stride=2).double().eval()
    torch.nn.init.zeros_(block.join[0].weight)
    x = torch.randn(1, 16, 5, 6, dtype=torch.float64)
    cells = torch.stack([x[..., 4, column : column + 2].mean(-1) for column in (0, 2, 4)], -1)  # half a window: its own
    expected = torch.relu(F.conv2d(cells.unsqueeze(-2), block.shortcut[1][0].weight) * KEEP)
    assert block(x).shape == (1, 16, 3, 3)
    torch.testing.assert_close(block(x)[..., 2:, :], expected)
