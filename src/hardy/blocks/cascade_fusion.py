"""Cascade feature fusion: a coarse map, enlarged and filtered with dilation 2, plus a projected fine map, and a ReLU.

Source: Zhao, Qi, Shen, Shi and Jia, "ICNet for real-time semantic segmentation on high-resolution images", ECCV 2018,
section 3.3 and figure 3.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["CascadeFusion"]


class CascadeFusion(nn.Module):
    """``(B, C_c, h, w), (B, C_f, H, W) -> (B, C_out, H, W), (B, C_c, H, W)``: the sum, and the enlarged coarse map,
    which an auxiliary head can read.

    Args:
        coarse_channels: C_c.
        fine_channels: C_f.
        out_channels: C_out.
    """

    def __init__(self, coarse_channels: int, fine_channels: int, out_channels: int) -> None:
        super().__init__()
        self.coarse = ConvNormAct(coarse_channels, out_channels, dilation=2, act=False)
        self.fine = ConvNormAct(fine_channels, out_channels, kernel=1, act=False)

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as above."""
        large = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.coarse(large) + self.fine(fine)), large
