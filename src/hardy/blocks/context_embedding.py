"""Context embedding: the mean of the map goes through a norm and a 1x1 convolution and is added to every cell.

Source: Yu, Gao, Wang, Yu, Shen and Sang, "BiSeNet V2: bilateral network with guided aggregation for real-time semantic
segmentation", IJCV 2021, section 4.2 and figure 4b.
"""

from torch import Tensor, nn

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.blocks.pooled_norm import PooledNorm

__all__ = ["ContextEmbedding"]


class ContextEmbedding(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``; the mean of a training batch of one image is normalised by running statistics.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context = nn.Sequential(
            PooledNorm(channels), nn.Conv2d(channels, channels, 1, bias=False), PooledNorm(channels), nn.ReLU()
        )
        self.mix = ConvNormAct(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        mixed: Tensor = self.mix(x + self.context(x.mean((-2, -1), keepdim=True)))
        return mixed
