"""The efficient spatial pyramid: its cost by formula, its sums against their definition in float64, its reach."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.esp import ESP
from hardy.ops.cost import gmacs


@pytest.mark.parametrize(("into", "out", "stride"), [(64, 64, 1), (19, 64, 2), (38, 19, 1), (10, 5, 1), (7, 13, 2)])
def test_cost_by_the_formula(into: int, out: int, stride: int) -> None:
    n = out // 5
    n1 = out - 4 * n
    weights = (1 if stride == 1 else 9) * into * n + 9 * n * n1 + 36 * n**2
    block = ESP(into, out, stride=stride)
    assert sum(p.numel() for p in block.parameters()) == weights + 3 * out  # scale, shift and slope
    wide = nn.Sequential(nn.Conv2d(3, into, 1), block)
    cells = -(-9 // stride) * -(-14 // stride)
    assert gmacs(wide, (9, 14)) * 1e9 == pytest.approx(3 * into * 9 * 14 + weights * cells)
    assert ESP.cost(into, out, (9, 14), stride=stride) == (weights, weights * cells)


def test_the_published_ratio_to_a_convolution() -> None:
    assert ESP.cost(256, 256, (1, 1)).weights / (9 * 256 * 256) == pytest.approx(0.221, abs=5e-4)


@pytest.mark.parametrize("residual", [False, True])
def test_sums_join_the_dilations_one_after_the_other(residual: bool) -> None:
    torch.manual_seed(0)
    block = ESP(12, 12, residual=residual).double().eval()
    nn.init.uniform_(block.norm.weight, 0.5, 1.5)
    nn.init.normal_(block.norm.bias)
    nn.init.uniform_(block.act.weight, 0.1, 0.4)
    x = torch.randn(2, 12, 21, 17, dtype=torch.float64)
    reduced = torch.einsum("oi,bihw->bohw", block.reduce.weight[:, :, 0, 0], x)
    d1, d2, d4, d8, d16 = (
        F.conv2d(reduced, block.branches[place].weight, padding=dilation, dilation=dilation)
        for place, dilation in enumerate((1, 2, 4, 8, 16))
    )
    assert d1.shape[1] == 12 - 4 * 2
    joined = torch.cat([d1, d2, d2 + d4, d2 + d4 + d8, d2 + d4 + d8 + d16], dim=1) + residual * x
    scale, shift, slope = (v.view(1, -1, 1, 1) for v in (block.norm.weight, block.norm.bias, block.act.weight))
    expected = joined / (1 + 1e-3) ** 0.5 * scale + shift
    expected = torch.where(expected > 0, expected, slope * expected)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_it_reaches_16_cells_far() -> None:
    block = ESP(5, 5).double().eval()
    x = torch.zeros(1, 5, 41, 41, dtype=torch.float64)
    x[..., 20, 20] = 1.0
    touched = (block(x) != block(torch.zeros_like(x))).any(dim=1)[0]
    rows = {int(row) - 20 for row in torch.nonzero(touched)[:, 0]}
    assert rows == {sign * d for d in (0, 1, 2, 4, 8, 16) for sign in (1, -1)}


def test_with_random_weights_the_last_sum_varies_as_the_input() -> None:
    torch.manual_seed(0)
    block = ESP(200, 200)
    block.draw()
    sums: list[torch.Tensor] = []
    block.norm.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
    block(torch.randn(2, 200, 80, 80))
    assert sums[0][:, -40:, 16:-16, 16:-16].var().item() == pytest.approx(1.0, rel=0.15)
    assert sums[0][:, :40, 16:-16, 16:-16].var().item() == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("make", [lambda: ESP(8, 4), lambda: ESP(8, 16, residual=True), lambda: ESP(8, 8, stride=3)])
def test_what_cannot_be_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssertionError):
        make()
