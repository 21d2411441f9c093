"""Feature fusion of a fine and a coarse branch: the coarse map is enlarged and filtered; then sum and ReLU.

Source: Poudel, Bonde, Liwicki and Zach, "ContextNet: exploring context and detail for semantic segmentation in
real-time", BMVC 2018, section 3.2 and table 3; Poudel, Liwicki and Cipolla, "Fast-SCNN", BMVC 2019, table 3.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["FusionUnit"]


class FusionUnit(nn.Module):
    """``(B, C_d, H, W), (B, C_c, h, w) -> (B, C_out, H, W)``.

    Args:
        detail_channels: C_d, of the fine map.
        context_channels: C_c, of the coarse map.
        out_channels: C_out.
        dilation: of the depthwise convolution that filters the enlarged map; in the papers it is the factor by which
            the map was enlarged.
        align_corners: enlarge the coarse map with aligned corners; False for half-pixel centres.
    """

    def __init__(
        self,
        detail_channels: int,
        context_channels: int,
        out_channels: int,
        *,
        dilation: int = 1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.filter = ConvNormAct(context_channels, context_channels, dilation=dilation, groups=context_channels)
        self.context = _widened(context_channels, out_channels)
        self.detail = _widened(detail_channels, out_channels)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Shapes as above."""
        context = F.interpolate(context, size=detail.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return F.relu(self.detail(detail) + self.context(self.filter(context)))


def _widened(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
