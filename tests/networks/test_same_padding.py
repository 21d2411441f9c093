import pytest
import timm
import torch
from torch import nn

from hardy.networks.parts.same_padding import SameConv, with_open_padding


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_zeros_stand_where_tensorflow_puts_them(kernel: int, dilation: int, stride: int) -> None:
    conv = SameConv(1, 1, kernel, stride, dilation=dilation, bias=False)
    conv.weight.data = torch.rand(1, 1, kernel, kernel)
    for length in (5, 6, 7, 8, 9):
        cells = -(-length // stride)
        zeros = max((cells - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
        x = torch.rand(1, 1, length, length + 1)
        padded = torch.zeros(1, 1, 40, 40)
        padded[..., zeros // 2 : zeros // 2 + length, 10 : 10 + length + 1] = x
        wide = nn.functional.conv2d(padded, conv.weight, None, 1, 0, dilation)
        cells_wide = -(-(length + 1) // stride)
        zeros_wide = max((cells_wide - 1) * stride + (kernel - 1) * dilation + 1 - length - 1, 0)
        left = 10 - zeros_wide // 2
        expected = wide[..., ::stride, left::stride][..., :cells, :cells_wide]
        torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("tf_mobilenetv3_small_minimal_100", {}), ("tf_efficientnet_lite0", {"output_stride": 8})],
)
def test_an_encoder_of_timms_computes_the_same_bits(name: str, kwargs: dict[str, int]) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, **kwargs).eval()
    torch.manual_seed(0)
    ours = with_open_padding(timm.create_model(name, **kwargs)).eval()
    assert not any(isinstance(module, timm.layers.Conv2dSame) for module in ours.modules())
    assert any(isinstance(module, SameConv) for module in ours.modules())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for size in ((64, 64), (65, 97), (33, 34)):
        images = torch.rand(1, 3, *size)
        assert torch.equal(ours(images), theirs(images))
