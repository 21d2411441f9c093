"""Attention blocks with fewer heads than their code allows.

The code of these blocks takes the width of all heads together to be the width of their input. A block that lost heads
or part of its input keeps its parameters, names and state dict, and gets a class whose forward pass does not assume
that; it computes the same function.

Sources: Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.2 (torch's attention, DaViT's windows);
Liu et al., "Swin Transformer V2", CVPR 2022, equations 2 and 3; Ding et al., "DaViT: dual attention vision
transformers", ECCV 2022, equation 4.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models import davit, swin_transformer_v2
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["narrow"]


def narrow(module: nn.Module, side: str, count: int) -> None:
    """Give an attention block that was cut a class that allows it, in place; other modules stay as they are.

    Args:
        module: what was cut.
        side: where it was cut.
        count: how many channels are left there.
    """
    if isinstance(module, nn.MultiheadAttention):
        if side == "heads":
            module.num_heads = count
        if side in ("in_proj_weight:1", "q_proj_weight:1"):
            module.embed_dim = count
        module.kdim = count if side in ("in_proj_weight:1", "k_proj_weight:1") else module.kdim
        module.vdim = count if side in ("in_proj_weight:1", "v_proj_weight:1") else module.vdim
        module._qkv_same_embed_dim = False  # so torch's transformer layers call it and do not read its weights
    kind = next((narrower for kind, narrower in _NARROWER.items() if type(module) is kind), None)
    if kind is not None:
        module.__class__ = kind


def _parts(projected: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """(B, N, parts * heads * d) as ``parts`` tensors (B, heads, N, d)."""
    return tuple(projected.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0))


def _merged(values: Tensor) -> Tensor:
    """(B, heads, N, d) as (B, N, heads * d)."""
    return values.transpose(1, 2).flatten(2)


class _MultiheadAttention(nn.MultiheadAttention):
    """See `torch.nn.MultiheadAttention`; the inputs may have another width than the heads together."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        given = [query, key, value]
        batched = query.ndim == 3
        if not batched:
            given = [one.unsqueeze(0) for one in given]
        elif not self.batch_first:
            given = [one.transpose(0, 1) for one in given]
        q, k, v = (_parts(one, self.num_heads, 1)[0] for one in self._projected(given))
        scores = q * self.head_dim**-0.5 @ k.transpose(-2, -1)
        if attn_mask is not None:
            mask = attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (-1, self.num_heads))
            scores = scores + _added(mask, scores)
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, scores)
            scores = scores + (padding if batched else padding.unsqueeze(0))[:, None, None]
        if self.add_zero_attn:
            scores, v = F.pad(scores, (0, 1)), F.pad(v, (0, 0, 0, 1))
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        out: Tensor = self.out_proj(_merged(weights @ v))
        told = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        if not batched:
            return out.squeeze(0), None if told is None else told.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), told

    def _projected(self, given: list[Tensor]) -> list[Tensor]:
        if self.in_proj_weight is not None:
            weights = list(self.in_proj_weight.chunk(3))
        else:
            weights = [getattr(self, f"{part}_proj_weight") for part in "qkv"]
        biases: Sequence[Tensor | None] = (None, None, None)
        if isinstance(self.in_proj_bias, Tensor):
            biases = self.in_proj_bias.chunk(3)
        return [F.linear(one, weight, bias) for one, weight, bias in zip(given, weights, biases, strict=True)]


def _added(mask: Tensor, scores: Tensor) -> Tensor:
    """What a mask adds to the scores: True stands for minus infinity."""
    return scores.new_zeros(mask.shape).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask


class _CosineAttention(swin_transformer_v2.WindowAttention):
    """See `timm.models.swin_transformer_v2.WindowAttention`."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        bias = None if self.q_bias is None else torch.cat([self.q_bias, self.k_bias, self.v_bias])
        q, k, v = _parts(F.linear(x, self.qkv.weight, bias), self.num_heads)
        cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = cosine * self.logit_scale.clamp(max=math.log(100.0)).exp() + self._positions()
        if mask is not None:
            windows = len(mask)
            scores = (scores.unflatten(0, (-1, windows)) + mask[None, :, None]).flatten(0, 1)
        return self.proj_drop(self.proj(_merged(self.attn_drop(scores.softmax(-1)) @ v)))  # type: ignore[no-any-return]

    def _positions(self) -> Tensor:
        """The bias (heads, N, N) of the relative position of two pixels in a window."""
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, -2)
        return 16 * table[self.relative_position_index].permute(2, 0, 1).sigmoid()  # type: ignore[no-any-return]


class _WindowAttention(davit.WindowAttention):
    """See `timm.models.davit.WindowAttention`."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = _parts(self.qkv(x), self.num_heads)
        return self.proj(_merged(F.scaled_dot_product_attention(q, k, v)))  # type: ignore[no-any-return]


class _ChannelAttention(davit.ChannelAttention):
    """See `timm.models.davit.ChannelAttention`."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = _parts(self.qkv(x), self.num_heads)
        weights = ((k * self.scale).transpose(-2, -1) @ v).softmax(-1)
        return self.proj(_merged(q @ weights.transpose(-2, -1)))  # type: ignore[no-any-return]


class _ChannelAttentionV2(davit.ChannelAttentionV2):
    """See `timm.models.davit.ChannelAttentionV2`."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = _parts(self.qkv(x), self.groups)
        scale = x.shape[1] ** -0.5 if self.dynamic_scale else self.head_dim**-0.5
        weights = ((q * scale).transpose(-2, -1) @ k).softmax(-1)
        return self.proj(_merged(v @ weights.transpose(-2, -1)))  # type: ignore[no-any-return]


_NARROWER: Mapping[type[nn.Module], type[Any]] = {
    nn.MultiheadAttention: _MultiheadAttention,
    swin_transformer_v2.WindowAttention: _CosineAttention,
    davit.WindowAttention: _WindowAttention,
    davit.ChannelAttention: _ChannelAttention,
    davit.ChannelAttentionV2: _ChannelAttentionV2,
}
