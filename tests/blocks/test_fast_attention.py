"""Fast attention against the paper's equation, cell by cell, in float64; what the image's size does to it; its cost."""

import pytest
import torch
from torch import nn

from hardy.blocks.fast_attention import FastAttention
from hardy.ops.cost import operations


def block(channels: int, **options: bool) -> FastAttention:
    torch.manual_seed(0)
    made = FastAttention(channels, width=4, **options).double().eval()
    for norm in (layer for layer in made.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    return made


@pytest.mark.parametrize("mean", [True, False])
def test_the_equation_of_the_paper(mean: bool) -> None:
    made = block(6, mean=mean)
    x = torch.randn(1, 6, 3, 5, dtype=torch.float64)
    query, key, value = (part(x)[0].flatten(1).T for part in (made.query, made.key, made.value))  # (n, d), (n, C)
    value = torch.where(value > 0, value, 0.01 * value)
    cells = len(query)
    answer = torch.zeros(cells, 6, dtype=torch.float64)
    for i in range(cells):
        for j in range(cells):
            cosine = query[i] @ key[j] / (query[i].norm() * key[j].norm())
            answer[i] += cosine * value[j] / (cells if mean else 1)
    mixed = made.mix(answer.T.reshape(1, 6, 3, 5))
    expected = x + torch.where(mixed > 0, mixed, 0.01 * mixed)
    torch.testing.assert_close(made(x), expected, rtol=1e-12, atol=1e-12)


def test_a_tiled_image_says_the_same_only_where_cells_are_averaged() -> None:
    x = torch.randn(1, 6, 3, 5, dtype=torch.float64)
    tiled = x.repeat(1, 1, 2, 3)
    same = block(6)
    torch.testing.assert_close(same(tiled), same(x).repeat(1, 1, 2, 3), rtol=1e-12, atol=1e-12)
    other = block(6, mean=False)
    assert (other(tiled) - other(x).repeat(1, 1, 2, 3)).abs().max() > 0.1


def test_cost_is_linear_in_the_cells() -> None:
    made = FastAttention(64)
    weights = 2 * 64 * 32 + 2 * 64 * 64
    assert sum(p.numel() for p in made.parameters()) == weights + 2 * (32 + 32 + 64 + 64)
    for size in [(4, 6), (8, 12)]:
        cells = size[0] * size[1]
        counted = operations(made, torch.empty(1, 64, *size)) * 1e9
        assert counted == pytest.approx(cells * (weights + 2 * 32 * 64))


def test_one_image_with_one_cell_trains() -> None:
    made = FastAttention(8)
    assert bool(made(torch.randn(1, 8, 1, 1)).isfinite().all())
