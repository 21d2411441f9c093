"""Self-attention over all pairs of cells of a map, by 1x1 convolutions with batch norms.

``B(W relu6(softmax(Q^T K) V))`` for each head, where Q, K and V are 1x1 convolutions of the map, each with a batch
norm. Values are twice as wide as keys. As in the authors' release, the products are not divided by the square root of
the keys' width, because the batch norms limit their scale.

Source: Zhang et al., "TopFormer: token pyramid transformer for mobile semantic segmentation", CVPR 2022, section 3.2;
convolutions with batch norms in attention: Graham et al., "LeViT", ICCV 2021.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.conv_norm_act import ConvNormAct
from hardy.ties import Coupling, head_rows

__all__ = ["ConvAttention"]


class ConvAttention(nn.Module):
    """``(B, C, h, w) -> (B, C, h, w)``; its cost grows with the square of the number of cells.

    A head can be cut out: its rows of ``query``, ``key`` and ``value`` and its columns of ``project`` are removed, and
    ``heads`` is one less. The input of ``project`` holds the outputs of all heads in order.

    Attributes:
        heads: number of heads.
        key_width: channels of a head's queries and keys; its values have twice as many.

    Args:
        channels: C.
        heads: number of heads as built.
        key_width: channels of a head's queries and keys.
    """

    def __init__(self, channels: int, heads: int, key_width: int = 16) -> None:
        super().__init__()
        self.heads, self.key_width = heads, key_width
        keys = heads * key_width
        self.query = ConvNormAct(channels, keys, kernel=1, act=False)
        self.key = ConvNormAct(channels, keys, kernel=1, act=False)
        self.value = ConvNormAct(channels, 2 * keys, kernel=1, act=False)
        self.project = ConvNormAct(2 * keys, channels, kernel=1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        rows = (layer(x).flatten(2).unflatten(1, (self.heads, -1)) for layer in (self.query, self.key, self.value))
        query, key, value = (each.transpose(2, 3) for each in rows)  # (B, heads, h * w, width)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        mixed = mixed.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[-2:])
        y: Tensor = self.project(F.relu6(mixed))
        return y

    def silence(self) -> None:
        """Set the scale of the last norm to zero, in place, so that the output is zero before training, as in the
        authors' release."""
        nn.init.zeros_(self.project[1].weight)  # type: ignore[arg-type]

    def channel_couplings(self) -> tuple[Coupling, ...]:
        """The heads, with their filters and their input channels of ``project``."""
        keys, values = head_rows(self.heads, self.key_width), head_rows(self.heads, 2 * self.key_width)
        ties = ("query.0", "out", keys), ("key.0", "out", keys), ("value.0", "out", values), ("project.0", "in", values)
        return (Coupling("heads", self.heads, ties, "project.0"),)

    def follow_cut(self, side: str, count: int) -> None:
        """Set the number of heads that are left, in place."""
        if side == "heads":
            self.heads = count
