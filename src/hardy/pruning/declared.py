"""What the code of known modules fixes and no trace can see: heads, and the attributes that tell a size.

An attention block keeps its number of heads in an attribute. For each block known here, the rows of its layers that
belong to a head are declared, so that a head goes as a whole, and its attributes follow what is cut.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from timm.layers import (
    Attention,
    AttentionRope,
    ConvMlp,
    GatedMlp,
    GlobalResponseNormMlp,
    GluMlp,
    Mlp,
    PatchEmbed,
    SwiGLU,
)
from timm.models.efficientformer import Attention as RowAttention
from timm.models.efficientformer import ConvMlpWithNorm as PlainConvMlpWithNorm
from timm.models.efficientformer_v2 import Attention2d, Attention2dDownsample, ConvMlpWithNorm
from timm.models.metaformer import Scale
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.ops.misc import MLP

from hardy.blocks.conv_attention import ConvAttention
from hardy.blocks.conv_ffn import ConvFFN
from hardy.blocks.efficient_attention import EfficientAttention
from hardy.blocks.mix_ffn import MixFFN
from hardy.blocks.parts import Parts

__all__ = ["DECLARED", "FEED_FORWARD", "PARTED", "Heads", "Tie", "declared_width", "follow", "heads_of", "streams_of"]

DECLARED = ("heads", "embedding")
"""Sides that modules have by declaration."""

FEED_FORWARD = (
    Mlp, GluMlp, SwiGLU, GatedMlp, ConvMlp, GlobalResponseNormMlp, ConvMlpWithNorm, PlainConvMlpWithNorm, MLP,
    MixFFN, ConvFFN,
)  # fmt: skip
"""Blocks that widen, act and narrow: the width between is a hidden width."""

PARTED = (Parts,)
"""Blocks that cut a map along its channels by widths that they read from other maps."""

Tie = tuple[str, str, tuple[tuple[int, ...], ...]]
"""(module, side, the module's channels of each head)."""


@dataclass(frozen=True)
class Heads:
    """The heads of one attention block.

    Attributes:
        count: how many there are.
        ties: the sides of the block's own modules that are cut with a head.
        gate: the layer that takes the heads' outputs, at whose input a head's gate sits.
    """

    count: int
    ties: tuple[Tie, ...]
    gate: str


def heads_of(module: nn.Module) -> Heads | None:
    """The heads of ``module``; None when it is no attention block known here."""
    for kind, describe in _HEADS.items():
        if isinstance(module, kind):
            return describe(module)
    return None


def streams_of(module: nn.Module) -> tuple[Tie, ...]:
    """What in ``module`` follows the width of its residual stream besides its layers, tied to what makes it."""
    if not isinstance(module, VisionTransformer) or not isinstance(module.patch_embed, PatchEmbed):
        return ()
    channels = tuple((channel,) for channel in range(module.embed_dim))
    return ("", "embedding", channels), ("patch_embed.proj", "out", channels)


def declared_width(module: nn.Module, side: str) -> int:
    """How many channels a declared side has; 0 when ``module`` has no such side."""
    if side == "embedding":
        return module.embed_dim if isinstance(module, VisionTransformer) else 0
    found = heads_of(module)
    return found.count if found else 0


def follow(module: nn.Module, side: str, count: int) -> None:
    """Set the attributes of ``module`` that tell its size, after a side was cut to ``count`` channels, in place."""
    if isinstance(module, Scale):
        module.shape = (count, *module.shape[1:])
    if isinstance(module, VisionTransformer) and side == "embedding":
        module.embed_dim = module.num_features = module.head_hidden_size = count
    if side != "heads":
        return
    if isinstance(module, (EfficientAttention, ConvAttention)):
        module.heads = count
        return
    module.num_heads = count  # type: ignore[assignment]
    if isinstance(module, (Attention, AttentionRope)):
        module.attn_dim = count * module.head_dim
    if isinstance(module, AttentionRope):
        module.num_kv_heads, module.kv_dim = count, count * module.head_dim
    if isinstance(module, (Attention2d, Attention2dDownsample)):
        module.dh = count * module.d
        module.attention_bias_cache = {}
    if isinstance(module, RowAttention):
        module.key_attn_dim, module.val_attn_dim = count * module.key_dim, count * module.val_dim
        module.attention_bias_cache = {}


def _rows(heads: int, wide: int, parts: int = 1) -> tuple[tuple[int, ...], ...]:
    """The rows of each head in a layer that makes ``parts`` vectors of ``wide`` rows for every head, one part after
    the other."""
    span = heads * wide
    return tuple(
        tuple(part * span + head * wide + row for part in range(parts) for row in range(wide)) for head in range(heads)
    )


def _fused(module: Attention | AttentionRope) -> Heads | None:
    heads, wide = module.num_heads, module.head_dim
    rows = _rows(heads, wide)
    ties: list[Tie] = [("proj", "in", rows)]
    if isinstance(module.qkv, nn.Linear):
        ties.append(("qkv", "out", _rows(heads, wide, 3)))
    elif module.num_kv_groups == 1:
        ties += [(name, "out", rows) for name in ("q_proj", "k_proj", "v_proj")]
    else:
        return None
    if isinstance(module.gate, nn.Linear):
        ties.append(("gate", "out", rows))
    return Heads(heads, tuple(ties), "proj")


def _window(module: WindowAttention) -> Heads:
    heads = module.num_heads
    wide = module.proj.in_features // heads
    single = _rows(heads, 1)
    return Heads(
        heads,
        (
            ("qkv", "out", _rows(heads, wide, 3)),
            ("proj", "in", _rows(heads, wide)),
            ("", "relative_position_bias_table:1", single),
        ),
        "proj",
    )


def _talking(module: Attention2d | Attention2dDownsample) -> Heads:
    """Heads that are mixed with each other before and after the softmax, or not; either way one attribute counts
    them."""
    heads = module.num_heads
    keys, values, single = _rows(heads, module.key_dim), _rows(heads, module.d), _rows(heads, 1)
    query = "q.proj.conv" if isinstance(module, Attention2dDownsample) else "q.conv"
    ties: list[Tie] = [
        (query, "out", keys),
        ("k.conv", "out", keys),
        ("v.conv", "out", values),
        ("proj.conv", "in", values),
        ("", "attention_biases:0", single),
    ]
    if isinstance(module, Attention2d):
        mixers = ("talking_head1", "talking_head2")
        ties += [(name, side, single) for name in mixers for side in ("out", "in")]
    return Heads(heads, tuple(ties), "proj.conv")


def _rowed(module: RowAttention) -> Heads:
    """Query, key and value of a head lie side by side in one layer."""
    heads = module.num_heads
    return Heads(
        heads,
        (
            ("qkv", "out", _rows(heads, 2 * module.key_dim + module.val_dim)),
            ("proj", "in", _rows(heads, module.val_dim)),
            ("", "attention_biases:0", _rows(heads, 1)),
        ),
        "proj",
    )


def _efficient(module: EfficientAttention) -> Heads:
    heads = module.heads
    wide = module.q.out_features // heads
    rows = _rows(heads, wide)
    return Heads(heads, (("q", "out", rows), ("kv", "out", _rows(heads, wide, 2)), ("proj", "in", rows)), "proj")


def _of_maps(module: ConvAttention) -> Heads:
    heads = module.heads
    keys, values = _rows(heads, module.key_width), _rows(heads, 2 * module.key_width)
    ties = ("query.0", "out", keys), ("key.0", "out", keys), ("value.0", "out", values), ("project.0", "in", values)
    return Heads(heads, ties, "project.0")


_HEADS: Mapping[type[nn.Module], Callable[..., Heads | None]] = {
    Attention: _fused,
    AttentionRope: _fused,
    WindowAttention: _window,
    Attention2d: _talking,
    Attention2dDownsample: _talking,
    RowAttention: _rowed,
    EfficientAttention: _efficient,
    ConvAttention: _of_maps,
}
