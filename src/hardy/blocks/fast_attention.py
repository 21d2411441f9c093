"""Fast attention: the similarity of two cells is a cosine without softmax, so keys and values can be multiplied first.

``y = Q^ (K^^T V) / n`` for n cells, where Q^ and K^ are the queries and keys of d channels, scaled to length 1 in each
cell. The cost is O(n d C) instead of O(n^2 C). A 1x1 convolution follows, and the input is added.

Source: Hu, Perazzi, Heilbron, Wang, Lin, Saenko and Sclaroff, "Real-time semantic segmentation with fast attention",
IEEE Robotics and Automation Letters 2021, equations 3 and 4.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.open_size import masked
from hardy.blocks.pooled_norm import PooledNorm

__all__ = ["FastAttention"]


class FastAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``.

    Batch norm and leaky ReLU (slope 0.01) follow the convolutions of the values and of y; only batch norm follows those
    of queries and keys.

    Args:
        channels: C.
        width: d, channels of queries and keys.
        mean: divide y by n, as in the paper's equation; False, as in the code published with the paper, lets y grow
            with the size of the image.
    """

    def __init__(self, channels: int, *, width: int = 32, mean: bool = True) -> None:
        super().__init__()
        self.mean = mean
        self.query = _conv_norm(channels, width)
        self.key = _conv_norm(channels, width)
        self.value = _conv_norm(channels, channels)
        self.mix = _conv_norm(channels, channels)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Shapes as above; cells where ``inside`` (B, 1, H, W) is 0 contribute nothing."""
        query = F.normalize(self.query(x).flatten(2), dim=1)
        key = F.normalize(self.key(x).flatten(2), dim=1)
        value = masked(F.leaky_relu(self.value(x), 0.01), inside)
        summed = value.flatten(2) @ key.mT  # (B, C, d)
        if self.mean:
            summed = summed / (x.shape[-2] * x.shape[-1] if inside is None else inside.flatten(2).sum(2, keepdim=True))
        answer = (summed @ query).unflatten(2, x.shape[-2:])
        return x + F.leaky_relu(self.mix(answer), 0.01)


def _conv_norm(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), PooledNorm(out_channels))
