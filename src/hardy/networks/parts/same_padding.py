"""TensorFlow's "same" padding of strided convolutions, as sums that an exported graph can hold while sizes are open.

Source: TensorFlow's documentation of ``padding="SAME"``: a map of n cells becomes one of ceil(n / stride), and of
an odd number of zeros one more stands at the end.
"""

from typing import Any

from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SameConv", "with_open_padding"]


class SameConv(nn.Conv2d):
    """``(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))``; a kernel is nowhere smaller than the stride."""

    def forward(self, x: Tensor) -> Tensor:
        """The same values as timm's, whose ceiling and maximum `torch.export` cannot keep for all sizes."""
        top, bottom = self._zeros(x.shape[-2], 0)
        left, right = self._zeros(x.shape[-1], 1)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _zeros(self, length: int, axis: int) -> tuple[int, int]:
        """How many zeros stand before and after ``length`` cells."""
        reach = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
        total = (length - 1) // self.stride[axis] * self.stride[axis] + reach - length
        return total // 2, total - total // 2


def with_open_padding(model: Any) -> Any:
    """``model`` of timm's, its "same" convolutions replaced in place under the same names, with the same weights."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Conv2dSame) and _covers(module):
                setattr(parent, name, _taken_over(module))
    return model


def _covers(module: nn.Conv2d) -> bool:
    sides = zip(module.kernel_size, module.dilation, module.stride, strict=True)
    return all((kernel - 1) * dilation + 1 >= stride for kernel, dilation, stride in sides)


def _taken_over(module: Any) -> SameConv:
    made = SameConv(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        module.stride,
        dilation=module.dilation,
        groups=module.groups,
        bias=module.bias is not None,
        device="meta",
    )
    made.weight, made.bias = module.weight, module.bias
    return made.train(module.training)
