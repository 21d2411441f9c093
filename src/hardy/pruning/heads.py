"""Heads: the rows and columns of the layers of an attention block that belong to one head and are removed with it.

An attention block keeps its number of heads in an attribute, which a trace cannot find. Hardy's own blocks declare it
(`hardy.ties`); this file declares it for blocks of timm, torchvision and torch. Some blocks assume that their heads
together are as wide as their input; these get another class when they lose heads (`hardy.pruning.narrow`).
"""

from collections.abc import Callable, Mapping

from timm.layers import Attention, AttentionRope
from timm.models import davit, levit, swin_transformer_v2, tiny_vit
from timm.models.efficientformer import Attention as RowAttention
from timm.models.efficientformer_v2 import Attention2d, Attention2dDownsample
from timm.models.swin_transformer import WindowAttention
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from hardy.ops.around import inside
from hardy.ops.axes import making
from hardy.pruning.narrow import narrow
from hardy.ties import Coupling, Tie, couplings_of, head_rows

__all__ = ["follow_heads", "heads_of"]


def heads_of(module: nn.Module) -> Coupling | None:
    """The heads of ``module``, as its class declares or registers them, or as declared here; None without heads."""
    couplings = couplings_of(module)
    if couplings is not None:
        return next((coupling for coupling in couplings if coupling.side == "heads"), None)
    for kind, describe in _HEADS.items():
        if isinstance(module, kind):
            return describe(module)
    return None


def follow_heads(module: nn.Module, count: int) -> None:
    """After a cut to ``count`` heads, set the attributes that hold the size of an attention block, in place."""
    if isinstance(module, davit.ChannelAttentionV2):
        module.groups = count
    else:
        module.num_heads = count  # type: ignore[assignment]
    narrow(module, "heads", count)
    if isinstance(module, (Attention, AttentionRope)):
        module.attn_dim = count * module.head_dim
    if isinstance(module, AttentionRope):
        module.num_kv_heads, module.kv_dim = count, count * module.head_dim
    if isinstance(module, (Attention2d, Attention2dDownsample)):
        module.dh = count * module.d
    if isinstance(module, (RowAttention, levit.Attention, levit.AttentionDownsample)):
        module.key_attn_dim, module.val_attn_dim = count * module.key_dim, count * module.val_dim
    if isinstance(module, tiny_vit.Attention):
        module.out_dim = count * module.val_dim
    if "attention_bias_cache" in vars(module):
        module.attention_bias_cache = {}  # type: ignore[assignment]


def _fused(module: Attention | AttentionRope) -> Coupling | None:
    heads, wide = module.num_heads, module.head_dim
    rows = head_rows(heads, wide)
    ties: list[Tie] = [("proj", "in", rows)]
    if isinstance(inside(module.qkv), nn.Linear):
        ties.append(("qkv", "out", head_rows(heads, wide, 3)))
    elif module.qkv is None and module.num_kv_groups == 1:
        ties += [(name, "out", rows) for name in ("q_proj", "k_proj", "v_proj")]
    else:
        return None
    if module.gate is not None and isinstance(inside(module.gate), nn.Linear):
        ties.append(("gate", "out", rows))
    return Coupling("heads", heads, tuple(ties), "proj")


def _window(module: WindowAttention) -> Coupling:
    heads = module.num_heads
    wide = module.proj.in_features // heads
    single = head_rows(heads, 1)
    return Coupling(
        "heads",
        heads,
        (
            ("qkv", "out", head_rows(heads, wide, 3)),
            ("proj", "in", head_rows(heads, wide)),
            ("", "relative_position_bias_table:1", single),
        ),
        "proj",
    )


def _talking(module: Attention2d | Attention2dDownsample) -> Coupling:
    """With or without talking heads, which mix the heads before and after the softmax; ``num_heads`` counts both."""
    heads = module.num_heads
    keys, values, single = head_rows(heads, module.key_dim), head_rows(heads, module.d), head_rows(heads, 1)
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
    return Coupling("heads", heads, tuple(ties), "proj.conv")


def _rowed(module: RowAttention | tiny_vit.Attention) -> Coupling:
    """Query, key and value of a head are adjacent rows of one layer."""
    heads = module.num_heads
    return Coupling(
        "heads",
        heads,
        (
            ("qkv", "out", head_rows(heads, 2 * module.key_dim + module.val_dim)),
            ("proj", "in", head_rows(heads, module.val_dim)),
            ("", "attention_biases:0", head_rows(heads, 1)),
        ),
        "proj",
    )


def _normed(module: levit.Attention | levit.AttentionDownsample) -> Coupling:
    """A norm layer follows each layer. A block that keeps its size computes queries, keys and values in one layer."""
    heads, keys, values = module.num_heads, module.key_dim, module.val_dim
    first: tuple[Tie, ...] = (("qkv.linear", "out", head_rows(heads, 2 * keys + values)),)
    if isinstance(module, levit.AttentionDownsample):
        first = ("kv.linear", "out", head_rows(heads, keys + values)), ("q.ln.linear", "out", head_rows(heads, keys))
    rest = ("proj.ln.linear", "in", head_rows(heads, values)), ("", "attention_biases:0", head_rows(heads, 1))
    return Coupling("heads", heads, (*first, *rest), "proj.ln.linear")


def _plain(module: davit.WindowAttention | davit.ChannelAttention | davit.ChannelAttentionV2) -> Coupling:
    heads = module.groups if isinstance(module, davit.ChannelAttentionV2) else module.num_heads
    wide = module.proj.in_features // heads
    return Coupling(
        "heads", heads, (("qkv", "out", head_rows(heads, wide, 3)), ("proj", "in", head_rows(heads, wide))), "proj"
    )


def _cosine(module: swin_transformer_v2.WindowAttention) -> Coupling:
    """With biases outside the layer, a temperature per head, and a position bias from a small network."""
    found = _plain(module)  # type: ignore[arg-type]
    rows, single = head_rows(found.count, module.proj.in_features // found.count), head_rows(found.count, 1)
    biases = ("q_bias:0", "k_bias:0", "v_bias:0") if module.q_bias is not None else ()
    ties = ("cpb_mlp.2", "out", single), ("", "logit_scale:0", single), *(("", name, rows) for name in biases)
    return Coupling("heads", found.count, (*found.ties, *ties), found.gate)


def _shifted(module: ShiftedWindowAttention) -> Coupling:
    """Version 1 has a table of position biases, version 2 is like `_cosine`."""
    found = _plain(module)  # type: ignore[arg-type]
    single = head_rows(found.count, 1)
    ties: tuple[Tie, ...] = (("", "relative_position_bias_table:1", single),)
    if isinstance(module, ShiftedWindowAttentionV2):
        ties = ("cpb_mlp.2", "out", single), ("", "logit_scale:0", single)
    return Coupling("heads", found.count, (*found.ties, *ties), found.gate)


def _torch(module: nn.MultiheadAttention) -> Coupling:
    """Torch may append a learned key and value to the keys and values of the input."""
    heads = module.num_heads
    rows, fused = head_rows(heads, module.head_dim), head_rows(heads, module.head_dim, 3)
    makers = tuple(("", side, fused if side == "in_proj_weight:0" else rows) for side in making(module))
    biases: tuple[Tie, ...] = (("", "in_proj_bias:0", fused),) if module.in_proj_bias is not None else ()
    learned = tuple(("", side, rows) for side in ("bias_k:2", "bias_v:2") if module.bias_k is not None)
    return Coupling("heads", heads, (*makers, *biases, *learned, ("out_proj", "in", rows)), "out_proj")


_HEADS: Mapping[type[nn.Module], Callable[..., Coupling | None]] = {
    Attention: _fused,
    AttentionRope: _fused,
    WindowAttention: _window,
    Attention2d: _talking,
    Attention2dDownsample: _talking,
    RowAttention: _rowed,
    tiny_vit.Attention: _rowed,
    levit.Attention: _normed,
    levit.AttentionDownsample: _normed,
    swin_transformer_v2.WindowAttention: _cosine,
    ShiftedWindowAttention: _shifted,
    davit.WindowAttention: _plain,
    davit.ChannelAttention: _plain,
    davit.ChannelAttentionV2: _plain,
    nn.MultiheadAttention: _torch,
}
