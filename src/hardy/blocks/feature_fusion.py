"""Feature fusion: a 1x1 convolution of concatenated maps, then weights for each channel.

``y = ReLU(BN(conv1x1(x)))``, then ``y + y * sigmoid(conv1x1(ReLU(conv1x1(mean(y)))))``.

Source: Yu, Wang, Peng, Gao, Yu and Sang, "BiSeNet: bilateral segmentation network for real-time semantic segmentation",
ECCV 2018, figure 2c.
"""

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["FeatureFusion"]


class FeatureFusion(nn.Module):
    """``(B, C_in, H, W) -> (B, C_out, H, W)``; the caller concatenates the maps.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        reduction: the weights are computed by two layers with ``C_out / reduction`` channels between them; None leaves
            the weights out.
    """

    def __init__(self, in_channels: int, out_channels: int, *, reduction: int | None = 4) -> None:
        super().__init__()
        self.mix = ConvNormAct(in_channels, out_channels, kernel=1)
        self.attention: nn.Sequential | None = None
        if reduction is not None:
            assert out_channels % reduction == 0, f"{out_channels} channels are not a multiple of {reduction}"
            self.attention = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(out_channels, out_channels // reduction, 1, bias=False),
                nn.ReLU(),
                nn.Conv2d(out_channels // reduction, out_channels, 1, bias=False),
                nn.Sigmoid(),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        y: Tensor = self.mix(x)
        return y if self.attention is None else y + y * self.attention(y)
