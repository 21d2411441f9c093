"""Guided aggregation of two branches: at both sizes one branch is weighted by the sigmoid of the other, then added.

``C_3x3(D(d) * sigmoid(up(S'(s))) + up(D'(d) * sigmoid(S(s))))``, where d is the detail map and s the semantic map,
which is four times coarser. D, D', S and S' are convolutions of the branches, D' with strides down to the size of s,
and up() resizes to the size of d.

Source: Yu, Gao, Wang, Yu, Shen and Sang, "BiSeNet V2: bilateral network with guided aggregation for real-time semantic
segmentation", IJCV 2021, section 4.3 and figure 6.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["BilateralAggregation", "enlarged"]


class BilateralAggregation(nn.Module):
    """``(B, C, h, w), (B, C, ceil(h / 4), ceil(w / 4)) -> (B, C, h, w)``.

    Args:
        channels: C.
        upsample: how coarse maps are enlarged: ``"bilinear"`` with half-pixel centres, or ``"nearest"``.
    """

    def __init__(self, channels: int, *, upsample: Literal["bilinear", "nearest"] = "bilinear") -> None:
        super().__init__()
        self.upsample = upsample
        self.detail_fine = _separable(channels)
        self.detail_coarse = nn.Sequential(
            ConvNormAct(channels, channels, stride=2, act=False), nn.AvgPool2d(3, stride=2, padding=1)
        )
        self.semantic_fine = ConvNormAct(channels, channels, act=False)
        self.semantic_coarse = _separable(channels)
        self.mix = ConvNormAct(channels, channels)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """Shapes as above."""
        size = detail.shape[-2:]
        fine = self.detail_fine(detail) * torch.sigmoid(enlarged(self.semantic_fine(semantic), size, self.upsample, 4))
        coarse = self.detail_coarse(detail) * torch.sigmoid(self.semantic_coarse(semantic))
        mixed: Tensor = self.mix(fine + enlarged(coarse, size, self.upsample, 4))
        return mixed


def _separable(channels: int) -> nn.Sequential:
    """A depthwise 3x3 convolution with a norm and a 1x1 convolution without."""
    return nn.Sequential(
        ConvNormAct(channels, channels, groups=channels, act=False), nn.Conv2d(channels, channels, 1, bias=False)
    )


def enlarged(x: Tensor, size: Sequence[int], upsample: str, factor: int) -> Tensor:
    """``x`` (B, C, h, w) resized to ``size`` (H, W).

    Args:
        x: the map.
        size: a side is ``factor`` times that of ``x``, or up to ``factor - 1`` cells less.
        upsample: ``"bilinear"`` with half-pixel centres; or ``"nearest"``, which repeats each cell ``factor`` times and
            crops the result at the right and the bottom.
        factor: the ratio of the sides.
    """
    if upsample == "bilinear":
        return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")[..., : size[0], : size[1]]
