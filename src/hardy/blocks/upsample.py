"""Upsampling by a factor: resizing, a transposed convolution, or a convolution whose channels become pixels.

Source: transposed convolution with bilinear initialisation: Long, Shelhamer and Darrell, "Fully convolutional networks
for semantic segmentation", CVPR 2015, section 3.3; channels to pixels: Shi et al., "Real-time single image and video
super-resolution using an efficient sub-pixel convolutional neural network", CVPR 2016, eq. 4.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.base import Cost, Costed

__all__ = ["Upsample", "bilinear_kernel"]


class Upsample(nn.Module, Costed):
    """``(B, C_in, H, W) -> (B, C_out, factor H, factor W)``.

    Args:
        in_channels: C_in.
        out_channels: C_out; equal to C_in for resizing.
        kind: ``"bilinear"`` (half-pixel centres) or ``"nearest"`` resizing; ``"transposed"``, a transposed convolution
            that is initialised as bilinear resizing (its kernel has twice the side ``factor``, so every pixel gets the
            same number of weights; ``factor`` must be even); ``"pixel_shuffle"``, a 1x1 convolution to
            ``factor^2 C_out`` channels, which become pixels.
        factor: the ratio of the sides, in both directions.
    """

    shown: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "up, bilinear": {"kind": "bilinear"},
        "up, transposed": {"kind": "transposed"},
        "up, pixel shuffle": {"kind": "pixel_shuffle"},
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kind: Literal["bilinear", "nearest", "transposed", "pixel_shuffle"] = "bilinear",
        factor: int = 2,
    ) -> None:
        convolves = kind in ("transposed", "pixel_shuffle")
        assert convolves or in_channels == out_channels, f"{kind} keeps the number of channels"
        super().__init__()
        self.kind, self.factor = kind, factor
        self.conv: nn.Module | None = None
        if kind == "transposed":
            self.conv = _transposed(in_channels, out_channels, factor)
        elif kind == "pixel_shuffle":
            self.conv = nn.Conv2d(in_channels, factor**2 * out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        if self.conv is not None:
            y: Tensor = self.conv(x)
            return F.pixel_shuffle(y, self.factor) if self.kind == "pixel_shuffle" else y
        size = [self.factor * side for side in x.shape[-2:]]
        if self.kind == "nearest":
            return F.interpolate(x, size, mode="nearest-exact")
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    @staticmethod
    def cost(
        in_channels: int, out_channels: int, size: tuple[int, int], *, kind: str = "bilinear", factor: int = 2
    ) -> Cost:
        """``4 f^2 M N`` weights for ``"transposed"``, ``f^2 M N`` for ``"pixel_shuffle"``, else none; each is used once
        for every input cell."""
        shares = {"transposed": 4 * factor**2, "pixel_shuffle": factor**2}
        weights = shares.get(kind, 0) * in_channels * out_channels
        return Cost(weights, weights * size[0] * size[1])


def bilinear_kernel(factor: int) -> Tensor:
    """(2 f, 2 f) float32: the kernel with which a transposed convolution of stride f = ``factor`` resizes bilinearly
    with half-pixel centres. The weights of each pixel that is not at the border add up to 1."""
    places = torch.arange(2 * factor, dtype=torch.float32)
    line = 1 - (places - (factor - 0.5)).abs() / factor
    return line[:, None] * line[None, :]


def _transposed(in_channels: int, out_channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution whose output channel i is initialised as the resized input channel i modulo C_in."""
    assert factor % 2 == 0, f"factor {factor} is odd: a kernel with twice that side is not centred"
    conv = nn.ConvTranspose2d(in_channels, out_channels, 2 * factor, factor, factor // 2, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        for channel in range(out_channels):
            conv.weight[channel % in_channels, channel] = bilinear_kernel(factor)
    return conv
