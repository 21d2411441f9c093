"""One step of a ladder decoder: a map resized to a finer map, plus the projected finer map, then a 3x3 convolution.

Source: Orsic, Kreso, Bevandic and Segvic, "In defense of pre-trained ImageNet architectures for real-time semantic
segmentation of road-driving images", CVPR 2019, section 3.2.
"""

from torch import Tensor, nn

from hardy.blocks.norm_act_conv import NormActConv
from hardy.blocks.sizes import resize

__all__ = ["LadderStep"]


class LadderStep(nn.Module):
    """``(B, C, h, w), (B, C_s, H, W) -> (B, C, H, W)``.

    Args:
        skip_channels: C_s.
        width: C.
    """

    def __init__(self, skip_channels: int, width: int) -> None:
        super().__init__()
        self.skip = NormActConv(skip_channels, width)
        self.mix = NormActConv(width, width, kernel=3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Shapes as above."""
        mixed: Tensor = self.mix(resize(x, skip.shape[-2:]) + self.skip(skip))
        return mixed
