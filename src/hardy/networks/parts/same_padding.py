"""TensorFlow's "same" padding of strided convolutions, computed so that an exported graph can have open sizes.

Source: TensorFlow's documentation of ``padding="SAME"``: a map of n cells becomes one of ceil(n / stride) cells, and if
the number of padding zeros is odd, the end gets one more than the start.
"""

from typing import Any

from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SameConv", "with_open_padding"]


class SameConv(nn.Conv2d):
    """``(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))``; the dilated kernel covers at least the
    stride."""

    def forward(self, x: Tensor) -> Tensor:
        """The same values as timm's layer, whose ceiling and maximum `torch.export` cannot express for all sizes."""
        top, bottom = self._zeros(x.shape[-2], 0)
        left, right = self._zeros(x.shape[-1], 1)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _zeros(self, length: int, axis: int) -> tuple[int, int]:
        """The numbers of zeros before and after ``length`` cells."""
        reach = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
        total = (length - 1) // self.stride[axis] * self.stride[axis] + reach - length
        return total // 2, total - total // 2


def with_open_padding(model: Any) -> Any:
    """Replace the "same" convolutions of a timm ``model`` by `SameConv`, in place, with the same names and weights."""
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
