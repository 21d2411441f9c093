"""Injection by its formula with and without the sum, and its cost."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.injection import Injection
from hardy.ops.cost import parameters


def conv(x: Tensor, layer: nn.Sequential) -> Tensor:
    """A 1x1 convolution and a batch norm that has seen nothing."""
    return torch.einsum("oc,bchw->bohw", layer[0].weight[..., 0, 0], x) / (1 + layer[1].eps) ** 0.5


@pytest.mark.parametrize("add", [True, False])
def test_is_its_formula(add: bool) -> None:
    torch.manual_seed(0)
    block = Injection(3, 5, 4, add=add).double().eval()
    fine, coarse = torch.randn(2, 3, 6, 9).double(), torch.randn(2, 5, 2, 3).double()
    gate = (conv(coarse, block.gate) + 3).clamp(0, 6) / 6
    expected = conv(fine, block.local) * F.interpolate(gate, (6, 9), mode="bilinear", align_corners=False)
    if block.context is not None:
        expected += F.interpolate(conv(coarse, block.context), (6, 9), mode="bilinear", align_corners=False)
    torch.testing.assert_close(block(fine, coarse), expected)
    assert parameters(block) == 4 * (3 + 5 + 5 * add) + 8 * (2 + add)


def test_a_closed_gate_lets_nothing_pass() -> None:
    block = Injection(3, 5, 4, add=False).eval()
    nn.init.constant_(block.gate[1].bias, -1e3)
    assert not block(torch.randn(1, 3, 4, 4), torch.randn(1, 5, 2, 2)).any()
