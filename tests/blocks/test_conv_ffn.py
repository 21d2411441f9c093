"""The feed-forward layer on maps against its equation in float64."""

import pytest
import torch
from block_equations import drawn, mixed

from hardy.blocks.conv_ffn import ConvFFN
from hardy.ops.cost import operations, parameters

WIDTH, HIDDEN = 3, 6


def test_is_its_equation() -> None:
    block = drawn(lambda: ConvFFN(WIDTH, HIDDEN))
    x = torch.randn(2, 4, 5, WIDTH, dtype=torch.float64)
    wide = torch.zeros(2, 6, 7, HIDDEN, dtype=torch.float64)  # with a border of zeros
    wide[:, 1:-1, 1:-1] = mixed(x, block.widen)
    filters = block.depthwise.weight[:, 0]
    near = [wide[:, r : r + 4, c : c + 5] * filters[:, r, c] for r in range(3) for c in range(3)]
    hidden = (sum(near) + block.depthwise.bias).clamp(0, 6)
    expected = mixed(hidden, block.narrow).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x.permute(0, 3, 1, 2)), expected, rtol=1e-9, atol=1e-9)


def test_cost() -> None:
    block = ConvFFN(WIDTH, HIDDEN)
    weights = 2 * WIDTH * HIDDEN + 9 * HIDDEN
    assert parameters(block) == weights + 3 * HIDDEN + 2 * WIDTH  # the norms, and one bias
    assert operations(block, torch.empty(1, WIDTH, 4, 5)) * 1e9 == pytest.approx(20 * weights)
