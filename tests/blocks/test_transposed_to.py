import pytest
import torch
from torch.nn import functional as F

from hardy.blocks.transposed_to import TransposedTo


@pytest.mark.parametrize("kernel", [2, 3])
def test_odd_sizes_are_those_of_a_convolution_with_that_output_size(kernel: int) -> None:
    up = TransposedTo(3, 4, kernel, bias=True)
    x = torch.randn(2, 3, 5, 7)
    for height, width in [(10, 14), (9, 13), (9, 14)]:
        whole = F.conv_transpose2d(x, up.weight, up.bias, 2, padding=kernel // 3, output_padding=kernel // 3)
        assert whole.shape[-2:] == (10, 14)
        torch.testing.assert_close(up(x, (height, width)), whole[..., :height, :width], rtol=0, atol=0)
    if kernel == 3:  # where PyTorch can make the odd size itself it is the same
        own = F.conv_transpose2d(x, up.weight, up.bias, 2, padding=1, output_padding=0)
        torch.testing.assert_close(up(x, (9, 13)), own)


def test_a_missing_row_is_zero() -> None:
    y = TransposedTo(1, 1)(torch.ones(1, 1, 2, 2), (5, 4))
    assert y.shape == (1, 1, 5, 4)
    assert (y[..., 4, :] == 0).all()
    assert (y[..., :4, :] != 0).all()


def test_stride_1_keeps_the_size() -> None:
    up = TransposedTo(2, 2, 3, stride=1)
    x = torch.randn(1, 2, 4, 5)
    flipped = up.weight.flip(-1, -2).transpose(0, 1)
    torch.testing.assert_close(up(x, (4, 5)), F.conv2d(x, flipped, padding=1))
    assert up(x).shape == x.shape


def test_even_kernels_other_than_2_are_refused() -> None:
    with pytest.raises(AssertionError, match="kernel 4"):
        TransposedTo(1, 1, 4)
