"""Mix-FFN: a feed-forward layer that reads the eight neighbouring cells and so needs no position encoding.

``W2 GELU(D(W1 x))`` with D a 3x3 depthwise convolution; the sum with x is the caller's.

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

    The hidden width is nowhere but in the layers: a hidden channel is a row of ``fc1``, a filter of the depthwise
    convolution and a column of ``fc2``. Parameters have the names that ImageNet checkpoints give them.

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
        """Nothing to set: all widths are read from the layers."""
