"""Squeeze-enhanced axial attention against its equations in float64, its cost, and channels cut out of all heads."""

import copy

import pytest
import torch
from block_equations import drawn
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.squeeze_axial_attention import SqueezeAxialAttention
from hardy.ops.cost import operations, parameters
from hardy.pruning.remove import replay

WIDTH, HEADS, KEYS = 5, 2, 3


def conv(x: Tensor, layer: nn.Sequential) -> Tensor:
    """The convolution and a batch norm that has seen nothing."""
    filters = layer[0].weight
    y = F.conv2d(x, filters, padding=filters.shape[-1] // 2, groups=layer[0].groups) / (1 + layer[1].eps) ** 0.5
    return y * layer[1].weight[:, None, None] + layer[1].bias[:, None, None]


def stretched(table: Tensor, length: int) -> Tensor:
    """(C, 16) to (C, length), linear with half-pixel centres, place by place."""
    found = []
    for place in range(length):
        centre = min(max((place + 0.5) * 16 / length - 0.5, 0), 15)
        low = int(centre)
        found.append(table[:, low] + (centre - low) * (table[:, min(low + 1, 15)] - table[:, low]))
    return torch.stack(found, dim=1)


def line(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one image's lines (C, n), head by head."""
    heads = []
    for q, k, v in zip(query.chunk(HEADS), key.chunk(HEADS), value.chunk(HEADS), strict=True):
        weights = (q.T @ k / KEYS**0.5).softmax(-1)
        heads.append(v @ weights.T)
    return torch.cat(heads)


def by_the_equations(block: SqueezeAxialAttention, x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    query, key, value = (conv(x, layer) for layer in (block.query, block.key, block.value))
    rows, columns = [], []
    for q, k, v in zip(query, key, value, strict=True):
        places = [stretched(table.flatten(1)[0].reshape(-1, 16), height) for table in (block.row_query, block.row_key)]
        rows.append(line(q.mean(2) + places[0], k.mean(2) + places[1], v.mean(2)))
        places = [stretched(table.reshape(-1, 16), width) for table in (block.column_query, block.column_key)]
        columns.append(line(q.mean(1) + places[0], k.mean(1) + places[1], v.mean(1)))
    row = conv(torch.stack(rows)[:, :, :, None].clamp(0, 6), block.rows)
    column = conv(torch.stack(columns)[:, :, None, :].clamp(0, 6), block.columns)
    gate = (conv((value + row + column).clamp(0, 6), block.project) + 3).clamp(0, 6) / 6
    side = torch.cat([query, key, value], dim=1)
    return gate * conv(conv(side, block.depthwise).clamp(0, 6), block.detail)


@pytest.mark.parametrize("size", [(4, 6), (1, 1), (17, 2)])
def test_is_its_equations(size: tuple[int, int]) -> None:
    block = drawn(lambda: SqueezeAxialAttention(WIDTH, HEADS, KEYS))
    x = torch.randn(2, WIDTH, *size, dtype=torch.float64)
    torch.testing.assert_close(block(x), by_the_equations(block, x), rtol=1e-9, atol=1e-9)


def test_cost() -> None:
    block, height, width = SqueezeAxialAttention(WIDTH, HEADS, KEYS), 4, 6
    keys = HEADS * KEYS
    values = 2 * keys
    maps = 2 * WIDTH * keys + 2 * WIDTH * values + 2 * values * (9 + WIDTH)
    lines = 2 * values**2
    norms = 2 * (2 * keys + 3 * values + 2 * values + 2 * WIDTH)
    assert parameters(block) == maps + lines + norms + 4 * 16 * keys
    products = (height**2 + width**2) * 3 * keys
    macs = height * width * maps + (height + width) * values**2 + products
    assert operations(block, torch.empty(1, WIDTH, height, width)) * 1e9 == pytest.approx(macs)


def test_a_channel_can_go_from_the_values_of_all_heads() -> None:
    block = drawn(lambda: SqueezeAxialAttention(WIDTH, HEADS, KEYS))
    silent, cut = copy.deepcopy(block), copy.deepcopy(block)
    values = 2 * HEADS * KEYS
    gone = [head * 2 * KEYS + 1 for head in range(HEADS)]
    kept = [channel for channel in range(values) if channel not in gone]
    beside = [*range(values), *(values + channel for channel in kept)]
    with torch.no_grad():
        for layer in (silent.value, silent.rows, silent.columns):
            layer[1].weight[gone], layer[1].bias[gone] = 0, 0
        for layer in (silent.rows, silent.columns, silent.project):
            layer[0].weight[:, gone] = 0
        silent.detail[0].weight[:, [values + channel for channel in gone]] = 0
    plan = {name: {"in": kept, "out": kept} for name in ("rows.0", "columns.0")}
    plan |= {name: {"out": kept} for name in ("value.0", "value.1", "rows.1", "columns.1")}
    plan |= {"project.0": {"in": kept}, "detail.0": {"in": beside}}
    plan |= {name: {"out": beside} for name in ("depthwise.0", "depthwise.1")}
    replay(cut, plan)
    x = torch.randn(2, WIDTH, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-9, atol=1e-9)
    assert (block(x) - cut(x)).abs().max() > 0.1
