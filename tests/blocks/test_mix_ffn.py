"""Mix-FFN against its equation in float64, its limit without neighbours, and what is left when hidden channels go."""

import copy

import torch
from torch import Tensor, nn

from hardy.blocks.mix_ffn import MixFFN
from hardy.ops.cost import parameters
from hardy.pruning.remove import replay

WIDTH, HIDDEN = 3, 6


def drawn() -> MixFFN:
    torch.manual_seed(0)
    block = MixFFN(WIDTH, HIDDEN).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    return block


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def test_is_its_equation() -> None:
    block = drawn()
    x = torch.randn(2, 4, 5, WIDTH, dtype=torch.float64)
    wide = torch.zeros(2, 6, 7, HIDDEN, dtype=torch.float64)  # with a border of zeros
    wide[:, 1:-1, 1:-1] = x @ block.fc1.weight.T + block.fc1.bias
    filters = block.dwconv.dwconv.weight[:, 0]
    near = [wide[:, r : r + 4, c : c + 5] * filters[:, r, c] for r in range(3) for c in range(3)]
    mixed = sum(near) + block.dwconv.dwconv.bias
    expected = gelu(mixed) @ block.fc2.weight.T + block.fc2.bias
    torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)
    weights = 2 * WIDTH * HIDDEN + 9 * HIDDEN
    assert parameters(block) == weights + 2 * HIDDEN + WIDTH


def test_without_neighbours_it_is_a_plain_feed_forward_layer() -> None:
    block = drawn()
    nn.init.zeros_(block.dwconv.dwconv.bias)
    nn.init.dirac_(block.dwconv.dwconv.weight, groups=HIDDEN)
    x = torch.randn(1, 3, 3, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(block(x), block.fc2(gelu(block.fc1(x))))


def test_cutting_hidden_channels_is_silencing_them() -> None:
    block = drawn()
    silent, cut = copy.deepcopy(block), copy.deepcopy(block)
    kept = [0, 2, 5]
    with torch.no_grad():
        silent.fc2.weight[:, [1, 3, 4]] = 0
    replay(cut, {"fc1": {"out": kept}, "dwconv.dwconv": {"out": kept}, "fc2": {"in": kept}})
    x = torch.randn(1, 4, 4, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(cut(x), silent(x))
    assert parameters(block) - parameters(cut) == 3 * (2 * WIDTH + 9 + 2)
