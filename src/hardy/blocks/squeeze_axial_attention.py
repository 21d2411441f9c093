"""Squeeze-enhanced axial attention: the means of rows ask each other, so do those of columns; details come by a gate.

With q, k, v 1x1 convolutions of the map, a mean over each row gives a line of h cells, and attention along it, with
position embeddings stretched to h added to q and k, gives a line y_h; y_w comes from the columns in the same way. Then
``s(B W relu6(v + y_h + y_w)) * detail`` with s the hard sigmoid, and ``detail`` a depthwise 3x3 and a 1x1 convolution
of q, k and v side by side. The cost of attention grows with h^2 + w^2 and not with (h w)^2.

Source: Wan, Huang, Lu, Yu and Zhang, "SeaFormer: squeeze-enhanced axial transformer for mobile semantic segmentation",
ICLR 2023, section 3; the order of norms and activations is that of the authors' release.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["SqueezeAxialAttention"]

_LENGTH = 16
"""Cells of a position embedding before it is stretched."""


class SqueezeAxialAttention(nn.Module):
    """``(B, C, h, w) -> (B, C, h, w)``.

    Values are twice as wide as keys. The number of heads stays; their widths are read from the layers, so a channel can
    be cut out of the keys or the values of all heads at once. The scale of the products is that of the keys as built.

    Attributes:
        heads: number of heads.
        scale: of the products of queries and keys.

    Args:
        channels: C.
        heads: number of heads.
        key_width: channels of a head's queries and keys.
    """

    def __init__(self, channels: int, heads: int, key_width: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, key_width**-0.5
        keys = heads * key_width
        values = 2 * keys
        self.query = ConvNormAct(channels, keys, kernel=1, act=False)
        self.key = ConvNormAct(channels, keys, kernel=1, act=False)
        self.value = ConvNormAct(channels, values, kernel=1, act=False)
        self.row_query = nn.Parameter(torch.randn(1, keys, _LENGTH, 1))
        self.row_key = nn.Parameter(torch.randn(1, keys, _LENGTH, 1))
        self.column_query = nn.Parameter(torch.randn(1, keys, 1, _LENGTH))
        self.column_key = nn.Parameter(torch.randn(1, keys, 1, _LENGTH))
        self.rows = ConvNormAct(values, values, kernel=1, act=False)
        self.columns = ConvNormAct(values, values, kernel=1, act=False)
        self.project = ConvNormAct(values, channels, kernel=1, act=False)
        self.depthwise = ConvNormAct(2 * values, 2 * values, groups=2 * values, act=False)
        self.detail = ConvNormAct(2 * values, channels, kernel=1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        maps = self.query(x), self.key(x), self.value(x)
        detail = self.detail(F.relu6(self.depthwise(torch.cat(maps, dim=1))))
        query, key, value = (each.mean(-1, keepdim=True) for each in maps)
        rows = self._line(_placed(query, self.row_query), _placed(key, self.row_key), value)
        query, key, value = (each.mean(-2, keepdim=True) for each in maps)
        columns = self._line(_placed(query, self.column_query), _placed(key, self.column_key), value)
        mixed = maps[2] + self.rows(F.relu6(rows)) + self.columns(F.relu6(columns))
        gated: Tensor = F.hardsigmoid(self.project(F.relu6(mixed))) * detail
        return gated

    def silence(self) -> None:
        """Let the lines be zero and the gate one half everywhere until something is learnt, in place, as the authors
        start."""
        for layer in (self.rows, self.columns, self.project):
            nn.init.zeros_(layer[1].weight)  # type: ignore[arg-type]

    def _line(self, *parts: Tensor) -> Tensor:
        """Attention along a line: queries, keys and values (B, C, n, 1) or (B, C, 1, n) -> the values' shape."""
        split = (part.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for part in parts)
        query, key, value = split  # (B, heads, n, width)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return mixed.transpose(2, 3).flatten(1, 2).reshape(parts[-1].shape)


def _placed(line: Tensor, positions: Tensor) -> Tensor:
    """``line`` (B, C, h, w) of which one side is 1, with ``positions`` stretched to it added."""
    return line + F.interpolate(positions, size=line.shape[-2:], mode="bilinear", align_corners=False)
