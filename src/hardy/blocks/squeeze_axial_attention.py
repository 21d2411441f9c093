"""Squeeze-enhanced axial attention: attention among the means of rows and of columns, which gates a map of details.

q, k and v are 1x1 convolutions of the map. The means of q, k and v over each row are a line of h cells. Attention along
this line gives y_h; position embeddings, resized to h, are added to q and k. y_w is computed from the columns in the
same way. The result is ``s(B W relu6(v + y_h + y_w)) * detail``, where s is the hard sigmoid and ``detail`` is a
depthwise 3x3 and a 1x1 convolution of the concatenated q, k and v. The cost of attention grows with h^2 + w^2, not with
(h w)^2.

Source: Wan, Huang, Lu, Yu and Zhang, "SeaFormer: squeeze-enhanced axial transformer for mobile semantic segmentation",
ICLR 2023, section 3; the order of norms and activations is that of the authors' release.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct

__all__ = ["SqueezeAxialAttention"]

_LENGTH = 16
"""Cells of a position embedding before it is resized."""


class SqueezeAxialAttention(nn.Module):
    """``(B, C, h, w) -> (B, C, h, w)``.

    Values are twice as wide as keys. Heads cannot be cut out, but a channel can be cut out of the keys or the values of
    all heads together, because their widths are read from the layers. The scale of the products does not change then.

    Attributes:
        heads: number of heads.
        scale: the factor of the products of queries and keys.

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
        """Set the scales of the last norms to zero, in place, as in the authors' release: before training y_h and y_w
        are zero, and the gate is 0.5 everywhere."""
        for layer in (self.rows, self.columns, self.project):
            nn.init.zeros_(layer[1].weight)  # type: ignore[arg-type]

    def _line(self, *parts: Tensor) -> Tensor:
        """Attention along a line: queries, keys and values (B, C, n, 1) or (B, C, 1, n) -> the values' shape."""
        split = (part.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for part in parts)
        query, key, value = split  # (B, heads, n, width)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return mixed.transpose(2, 3).flatten(1, 2).reshape(parts[-1].shape)


def _placed(line: Tensor, positions: Tensor) -> Tensor:
    """``line`` (B, C, h, w), where h or w is 1, plus ``positions`` resized to it."""
    return line + F.interpolate(positions, size=line.shape[-2:], mode="bilinear", align_corners=False)
