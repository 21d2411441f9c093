"""Attention against its equation in float64, and what is left when heads or parts of heads are cut out."""

import copy

import pytest
import torch
from torch import Tensor, nn

from hardy.blocks.efficient_attention import EfficientAttention
from hardy.ops.cost import gmacs, parameters

WIDTH, HEADS, D = 20, 5, 4
EACH = pytest.mark.parametrize("reduction", [1, 2])


def drawn(reduction: int) -> EfficientAttention:
    torch.manual_seed(0)
    block = EfficientAttention(WIDTH, HEADS, reduction=reduction).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    return block


def by_the_equation(block: EfficientAttention, x: Tensor, reduction: int) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, one image, one head and one query at a time."""
    answers = []
    for image in x:
        context = image
        if reduction > 1:  # every R x R patch is one token: a linear map of its cells, then a norm over channels
            height, width = (side // reduction for side in image.shape[:2])
            rows = image[: height * reduction, : width * reduction].reshape(height, reduction, width, reduction, WIDTH)
            context = torch.einsum("arbsc,ocrs->abo", rows, block.sr.weight) + block.sr.bias
            centred = context - context.mean(-1, keepdim=True)
            context = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            context = context * block.norm.weight + block.norm.bias
        queries = image.reshape(-1, WIDTH) @ block.q.weight.T + block.q.bias
        both = context.reshape(-1, WIDTH) @ block.kv.weight.T + block.kv.bias
        heads = []
        for head in range(HEADS):
            mine = slice(head * D, (head + 1) * D)
            k, v = both[:, :WIDTH][:, mine], both[:, WIDTH:][:, mine]
            weights = [(k @ query / D**0.5).exp() for query in queries[:, mine]]
            heads.append(torch.stack([weight @ v / weight.sum() for weight in weights]))
        answers.append((torch.cat(heads, dim=1) @ block.proj.weight.T + block.proj.bias).reshape(image.shape))
    return torch.stack(answers)


@EACH
def test_is_its_equation(reduction: int) -> None:
    block = drawn(reduction)
    x = torch.randn(2, 5, 7, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(block(x), by_the_equation(block, x, reduction), rtol=1e-9, atol=1e-9)


def test_without_questions_every_cell_hears_the_mean() -> None:
    block = drawn(1)
    nn.init.zeros_(block.q.weight)
    nn.init.zeros_(block.q.bias)
    x = torch.randn(1, 3, 4, WIDTH, dtype=torch.float64)
    values = x.reshape(-1, WIDTH) @ block.kv.weight[WIDTH:].T + block.kv.bias[WIDTH:]
    torch.testing.assert_close(block(x), block.proj(values.mean(0)).expand_as(x))


def keep(block: EfficientAttention, rows: list[int]) -> None:
    """Cut the layers in place to these of the channels of all heads."""
    with torch.no_grad():
        block.q.weight, block.q.bias = nn.Parameter(block.q.weight[rows]), nn.Parameter(block.q.bias[rows])
        both = rows + [WIDTH + row for row in rows]
        block.kv.weight, block.kv.bias = nn.Parameter(block.kv.weight[both]), nn.Parameter(block.kv.bias[both])
        block.proj.weight = nn.Parameter(block.proj.weight[:, rows])


@EACH
@pytest.mark.parametrize("head", [0, 2, 4])
def test_cutting_a_head_is_silencing_it(reduction: int, head: int) -> None:
    block = drawn(reduction)
    silent, cut = copy.deepcopy(block), copy.deepcopy(block)
    with torch.no_grad():
        silent.proj.weight[:, head * D : (head + 1) * D] = 0
    keep(cut, [row for row in range(WIDTH) if row // D != head])
    cut.num_heads -= 1
    x = torch.randn(2, 4, 6, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-6, atol=1e-6)
    assert (block(x) - cut(x)).abs().max() > 0.1
    assert parameters(block) - parameters(cut) == 3 * D * (WIDTH + 1) + D * WIDTH


def test_cutting_a_part_of_every_head_leaves_the_scale() -> None:
    block = drawn(1)
    silent, cut = copy.deepcopy(block), copy.deepcopy(block)
    last = [row for row in range(WIDTH) if row % D == D - 1]
    with torch.no_grad():
        silent.q.weight[last], silent.q.bias[last] = 0, 0
        silent.proj.weight[:, last] = 0
    keep(cut, [row for row in range(WIDTH) if row not in last])
    x = torch.randn(2, 4, 6, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-6, atol=1e-6)


def test_heads_need_not_be_as_wide_in_values_as_in_keys() -> None:
    block = drawn(1)
    silent, cut = copy.deepcopy(block), copy.deepcopy(block)
    last = [row for row in range(WIDTH) if row % D == D - 1]
    kept = [row for row in range(2 * WIDTH) if row - WIDTH not in last]
    with torch.no_grad():
        silent.proj.weight[:, last] = 0
        cut.kv.weight, cut.kv.bias = nn.Parameter(block.kv.weight[kept]), nn.Parameter(block.kv.bias[kept])
        cut.proj.weight = nn.Parameter(block.proj.weight[:, [row for row in range(WIDTH) if row not in last]])
    x = torch.randn(1, 3, 3, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-6, atol=1e-6)


@EACH
def test_cost_falls_with_the_square_of_the_reduction(reduction: int) -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = EfficientAttention(3, 1, reduction=reduction)

        def forward(self, images: Tensor) -> Tensor:
            result: Tensor = self.block(images.permute(0, 2, 3, 1))
            return result

    tokens, answers = 8 * 12, 8 * 12 // reduction**2
    reduce = 9 * reduction**2 * answers if reduction > 1 else 0
    macs = 2 * 9 * tokens + 18 * answers + 2 * 3 * tokens * answers + reduce
    assert gmacs(Images(), (8, 12)) * 1e9 == pytest.approx(macs)


def test_channels_are_shared_evenly_among_heads() -> None:
    with pytest.raises(AssertionError, match="not a multiple"):
        EfficientAttention(20, 3)
