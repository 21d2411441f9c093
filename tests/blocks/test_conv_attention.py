"""Attention on maps against its equation in float64, its cost, and a head that is cut out."""

import copy

import pytest
import torch
from block_equations import drawn, mixed
from torch import Tensor, nn

from hardy.blocks.conv_attention import ConvAttention
from hardy.ops.cost import operations, parameters
from hardy.pruning.heads import heads_of
from hardy.pruning.remove import replay

WIDTH, HEADS, KEYS = 5, 3, 2


def by_the_equation(block: ConvAttention, x: Tensor) -> Tensor:
    """softmax(Q K^T) V, one image, one head and one query at a time; no scale."""
    answers = []
    for image in x:
        tokens = image.flatten(1).T
        query, key, value = (mixed(tokens, layer) for layer in (block.query, block.key, block.value))
        heads = []
        for head in range(HEADS):
            mine, its = slice(head * KEYS, (head + 1) * KEYS), slice(2 * head * KEYS, 2 * (head + 1) * KEYS)
            weights = [(key[:, mine] @ one).softmax(0) for one in query[:, mine]]
            heads.append(torch.stack([weight @ value[:, its] for weight in weights]))
        answers.append(mixed(torch.cat(heads, dim=1).clamp(0, 6), block.project).T.reshape(image.shape))
    return torch.stack(answers)


def test_is_its_equation() -> None:
    block = drawn(lambda: ConvAttention(WIDTH, HEADS, KEYS))
    x = torch.randn(2, WIDTH, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(block(x), by_the_equation(block, x), rtol=1e-9, atol=1e-9)


def test_without_questions_every_cell_hears_the_mean() -> None:
    block = drawn(lambda: ConvAttention(WIDTH, HEADS, KEYS))
    nn.init.zeros_(block.query[1].weight)
    nn.init.zeros_(block.query[1].bias)
    x = torch.randn(1, WIDTH, 3, 4, dtype=torch.float64)
    mean = block.value(x).mean((2, 3), keepdim=True).clamp(0, 6)
    torch.testing.assert_close(block(x), block.project(mean).expand_as(x))


@pytest.mark.parametrize("head", range(HEADS))
def test_cutting_a_head_is_silencing_it(head: int) -> None:
    block = drawn(lambda: ConvAttention(WIDTH, HEADS, KEYS))
    silent, cut = copy.deepcopy(block), copy.deepcopy(block)
    declared = heads_of(block)
    assert declared is not None
    assert declared.count == HEADS
    plan: dict[str, dict[str, list[int]]] = {}
    for name, side, rows in declared.ties:
        kept = [row for other in range(HEADS) if other != head for row in rows[other]]
        plan[name] = {side: kept}
        if side == "out":
            plan[name.replace(".0", ".1")] = {"out": kept}
        else:
            with torch.no_grad():
                silent.get_submodule(name).weight[:, list(rows[head])] = 0
    replay(cut, plan)
    cut.heads -= 1
    x = torch.randn(2, WIDTH, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-9, atol=1e-9)
    assert (block(x) - cut(x)).abs().max() > 0.1
    assert parameters(block) - parameters(cut) == 4 * KEYS * (WIDTH + 2) + 2 * KEYS * WIDTH


def test_cost() -> None:
    block, cells = ConvAttention(WIDTH, HEADS, KEYS), 12
    keys = HEADS * KEYS
    weights = 6 * WIDTH * keys
    assert parameters(block) == weights + 2 * (4 * keys + WIDTH)
    products = cells * cells * 3 * keys
    assert operations(block, torch.empty(1, WIDTH, 3, 4)) * 1e9 == pytest.approx(cells * weights + products)
