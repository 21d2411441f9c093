"""Efficient self-attention: queries from every cell, keys and values from a coarser copy of the map.

``softmax(Q K^T / sqrt(d)) V`` for each head. K and V come from a copy of the map that a strided convolution reduces R
times along each side, so the cost of the products is R^2 times smaller.

Source: Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021,
equations 1 and 2; the reduction by convolution is that of Wang et al., "Pyramid vision transformer", ICCV 2021.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.ties import Coupling, head_rows

__all__ = ["EfficientAttention"]


class EfficientAttention(nn.Module):
    """``(B, h, w, C) -> (B, h, w, C)``, channels last; h and w at least ``reduction``.

    A head can be cut out: its rows of ``q``, its rows in both halves of ``kv`` (first the keys of all heads, then the
    values of all heads) and its columns of ``proj`` are removed, and ``num_heads`` is one less. The width d of a head
    is read from the layers. The scale 1 / sqrt(d) is that of the heads as built and does not change. The input of
    ``proj`` (B, h * w, heads * d) holds the outputs of all heads in order.

    Parameters are named as in ImageNet checkpoints.

    Attributes:
        num_heads: number of heads.
        scale: the factor of the products of queries and keys.

    Args:
        channels: C.
        heads: number of heads as built; divides C.
        reduction: R, along each side.
        eps: epsilon of the layer norm of the coarser copy.
    """

    def __init__(self, channels: int, heads: int, *, reduction: int = 1, eps: float = 1e-6) -> None:
        assert channels % heads == 0, f"{channels} channels are not a multiple of {heads} heads"
        super().__init__()
        self.num_heads = heads
        self.scale = (channels // heads) ** -0.5
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.sr: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, eps=eps)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        coarse = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        q = self.q(x.flatten(1, 2))
        k, v = self.kv(coarse.flatten(1, 2)).tensor_split((q.shape[-1],), dim=-1)
        q, k, v = (each.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for each in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)  # (B, heads, h * w, d)
        attended: Tensor = self.proj(mixed.transpose(1, 2).flatten(2)).unflatten(1, x.shape[1:3])
        return attended

    def channel_couplings(self) -> tuple[Coupling, ...]:
        """The heads, with their rows and columns."""
        wide = self.q.out_features // self.num_heads
        rows, doubled = head_rows(self.num_heads, wide), head_rows(self.num_heads, wide, 2)
        ties = ("q", "out", rows), ("kv", "out", doubled), ("proj", "in", rows)
        return (Coupling("heads", self.num_heads, ties, "proj"),)

    def follow_cut(self, side: str, count: int) -> None:
        """Set the number of heads that are left, in place."""
        if side == "heads":
            self.num_heads = count
