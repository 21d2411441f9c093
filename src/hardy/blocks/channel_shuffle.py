"""Channel shuffle: interleaves the channels of all groups, so that the next grouped convolution reads every group.

With G groups of n channels, channel i of group g moves from index ``g n + i`` to index ``i G + g``. This needs no
multiply-accumulate, but reads and writes the full map.

Source: Zhang, Zhou, Lin and Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices",
CVPR 2018, section 3.1 and figure 1.
"""

from torch import Tensor, nn

__all__ = ["ChannelShuffle"]


class ChannelShuffle(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        groups: G, which divides C.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        shuffled: Tensor = x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        return shuffled
