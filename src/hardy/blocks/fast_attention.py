"""Fast attention: the similarity of cells is a cosine without softmax, so keys are multiplied with values first and no
pairs of cells occur.

``y = Q^ (K^^T V) / n`` with queries and keys of d channels scaled to length 1 in every cell and n cells: O(n d C) in
place of O(n^2 C). A 1x1 convolution mixes y, and the map itself is added.

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

    Values and the mixture go through batch norm and leaky ReLU (slope 0.01), queries and keys through batch norm alone.

    Args:
        channels: C.
        width: d, channels of queries and keys.
        mean: whether the answer is divided by n, as in the paper's equation. Without it, as in the code published with
            the paper, it grows with the size of the image.
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
        summed = value.flatten(2) @ key.mT  # (B, C, d): the values summed in each direction
        if self.mean:
            summed = summed / (x.shape[-2] * x.shape[-1] if inside is None else inside.flatten(2).sum(2, keepdim=True))
        answer = (summed @ query).unflatten(2, x.shape[-2:])
        return x + F.leaky_relu(self.mix(answer), 0.01)


def _conv_norm(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), PooledNorm(out_channels))
