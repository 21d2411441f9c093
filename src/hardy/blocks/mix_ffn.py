"""Mix-FFN: a feed-forward layer that also reads the eight neighbouring cells, so no position encoding is needed.

``W2 GELU(D(W1 x))``, where D is a 3x3 depthwise convolution. The caller adds x.

Source: Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021,
equation 3.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.ties import Coupling

__all__ = ["MixFFN"]


class MixFFN(nn.Module):
    """``(B, h, w, C) -> (B, h, w, C)``, channels last.

    No attribute stores the hidden width. A hidden channel is a row of ``fc1``, a filter of the depthwise convolution
    and a column of ``fc2``. Parameters are named as in ImageNet checkpoints.

    Args:
        channels: C.
        hidden: channels between the two linear layers.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Sequential(OrderedDict(dwconv=nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)))
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        mixed = self.dwconv(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y: Tensor = self.fc2(F.gelu(mixed))
        return y

    def channel_couplings(self) -> tuple[Coupling, ...]:
        """The width between its layers is a hidden width."""
        return (Coupling("hidden"),)

    def follow_cut(self, side: str, count: int) -> None:
        """Do nothing: all widths are read from the layers."""
