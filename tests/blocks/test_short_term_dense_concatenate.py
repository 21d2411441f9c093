import pytest
import torch
from torch.nn import functional as F

from hardy.blocks.short_term_dense_concatenate import ShortTermDenseConcatenate


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_every_map_of_the_row_side_by_side(stride: int) -> None:
    torch.manual_seed(0)
    block = ShortTermDenseConcatenate(5, 16, stride=stride).double().eval()
    weights = block.state_dict()
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64)

    def normed(y: torch.Tensor, name: str) -> torch.Tensor:
        stats = [weights[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(y, *stats)

    def conv(y: torch.Tensor, place: int) -> torch.Tensor:
        kernel = weights[f"conv_list.{place}.conv.weight"]
        return normed(F.conv2d(y, kernel, padding=kernel.shape[-1] // 2), f"conv_list.{place}.bn").relu()

    first = after = conv(x, 0)
    if stride == 2:
        after = normed(F.conv2d(first, weights["avd_layer.0.weight"], None, 2, 1, 1, 8), "avd_layer.1")
        first = F.avg_pool2d(first, 3, 2, 1)
    second = conv(after, 1)
    third = conv(second, 2)
    expected = torch.cat([first, second, third, conv(third, 3)], dim=1)
    assert [part.shape[1] for part in (first, second, third)] == [8, 4, 2]
    torch.testing.assert_close(block(x), expected)
    assert expected.shape == (2, 16, -(-9 // stride), 12 // stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_weights_by_the_formula(stride: int) -> None:
    m, n = 24, 64
    block = ShortTermDenseConcatenate(m, n, stride=stride)
    convs = m * n // 2 + 9 * (n * n // 8 + n * n // 32 + n * n // 64) + (stride == 2) * 9 * n // 2
    norms = 2 * n + (stride == 2) * n
    assert sum(value.numel() for value in block.parameters()) == convs + norms
