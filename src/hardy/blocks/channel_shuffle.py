"""Channel shuffle: channels of all groups in turns, so that the next grouped convolution sees every group.

Channel c of G groups of n goes from place ``g n + i`` to place ``i G + g``. It costs no multiply-accumulate, and a read
and a write of the full map.

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
