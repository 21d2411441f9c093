"""Classes for attention blocks whose original code does not allow fewer heads.

The original code assumes that all heads together are as wide as the input. A block that loses heads or input channels
keeps the names of its parameters and state dict. It gets a class whose forward pass computes the same function without
this assumption.

Sources: Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.2 (torch's attention, DaViT's windows);
Liu et al., "Swin Transformer", ICCV 2021, section 3.2, and "Swin Transformer V2", CVPR 2022, equations 2 and 3; Ding
et al., "DaViT: dual attention vision transformers", ECCV 2022, equation 4.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.models import davit, swin_transformer_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

__all__ = ["narrow"]


def narrow(module: nn.Module, side: str, count: int) -> None:
    """Give an attention block a class that works after the cut, in place; other modules do not change.

    Args:
        module: the module that was cut.
        side: the side that was cut.
        count: the number of channels left on that side.
    """
    if isinstance(module, nn.MultiheadAttention):
        if side == "heads":
            module.num_heads = count
        if side in ("in_proj_weight:1", "q_proj_weight:1"):
            module.embed_dim = count
        module.kdim = count if side in ("in_proj_weight:1", "k_proj_weight:1") else module.kdim
        module.vdim = count if side in ("in_proj_weight:1", "v_proj_weight:1") else module.vdim
        module._qkv_same_embed_dim = False  # so that torch's transformer layers call it and do not read its weights
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
    """See `torch.nn.MultiheadAttention`; the inputs and the heads together may have different widths."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        given = [query, key, value]
        batched = query.ndim == 3
        if not batched:
            given = [one.unsqueeze(0) for one in given]
        elif not self.batch_first:
            given = [one.transpose(0, 1) for one in given]
        q, k, v = (_parts(one, self.num_heads, 1)[0] for one in self._projected(given))
        if self.bias_k is not None and self.bias_v is not None:
            learned = (one.expand(len(k), -1, -1) for one in (self.bias_k, self.bias_v))
            more, last = (_parts(one, self.num_heads, 1)[0] for one in learned)
            k, v = torch.cat([k, more], 2), torch.cat([v, last], 2)
        scores = q * self.head_dim**-0.5 @ k.transpose(-2, -1)
        appended = 0, k.shape[2] - given[1].shape[1]
        if attn_mask is not None:
            mask = attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (-1, self.num_heads))
            scores = scores + F.pad(_added(mask, scores), appended)
        if key_padding_mask is not None:
            padding = F.pad(_added(key_padding_mask, scores), appended)
            scores = scores + (padding if batched else padding.unsqueeze(0))[:, None, None]
        if self.add_zero_attn:
            scores, v = F.pad(scores, (0, 1)), F.pad(v, (0, 0, 0, 1))
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        out: Tensor = self.out_proj(_merged(weights @ v))
        returned = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        if not batched:
            return out.squeeze(0), None if returned is None else returned.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), returned

    def _projected(self, given: list[Tensor]) -> list[Tensor]:
        if self.in_proj_weight is not None:
            weights = list(self.in_proj_weight.chunk(3))
        else:
            weights = [getattr(self, f"{part}_proj_weight") for part in "qkv"]
        biases: Sequence[Tensor | None] = (None, None, None)
        if self.in_proj_bias is not None:
            biases = self.in_proj_bias.chunk(3)
        return [F.linear(one, weight, bias) for one, weight, bias in zip(given, weights, biases, strict=True)]


def _added(mask: Tensor, scores: Tensor) -> Tensor:
    """The values that a mask adds to the scores: minus infinity for True; a float mask is returned unchanged."""
    return scores.new_zeros(mask.shape).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask


class _CosineAttention(swin_transformer_v2.WindowAttention):
    """See `timm.models.swin_transformer_v2.WindowAttention`."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        bias = None if self.q_bias is None else torch.cat([self.q_bias, self.k_bias, self.v_bias])  # type: ignore[list-item]
        q, k, v = _parts(F.linear(x, self.qkv.weight, bias), self.num_heads)
        cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = cosine * self.logit_scale.clamp(max=math.log(100.0)).exp() + self._positions()
        if mask is not None:
            windows = len(mask)
            scores = (scores.unflatten(0, (-1, windows)) + mask[None, :, None]).flatten(0, 1)
        return self.proj_drop(self.proj(_merged(self.attn_drop(scores.softmax(-1)) @ v)))  # type: ignore[no-any-return]

    def _positions(self) -> Tensor:
        """The bias (heads, N, N) for the relative position of two pixels in a window."""
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, -2)
        return 16 * table[self.relative_position_index].permute(2, 0, 1).sigmoid()  # type: ignore[no-any-return]


class _ShiftedWindows(ShiftedWindowAttention):
    """See `torchvision.models.swin_transformer.ShiftedWindowAttention`."""

    def forward(self, x: Tensor) -> Tensor:
        def scored(q: Tensor, k: Tensor) -> Tensor:
            return q / math.sqrt(q.shape[-1]) @ k.transpose(-2, -1)

        return _in_windows(self, x, self.qkv.bias, scored)


class _ShiftedWindowsV2(ShiftedWindowAttentionV2):
    """See `torchvision.models.swin_transformer.ShiftedWindowAttentionV2`: the key has no bias, scores are cosines."""

    def forward(self, x: Tensor) -> Tensor:
        def scored(q: Tensor, k: Tensor) -> Tensor:
            cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            return cosine * self.logit_scale.clamp(max=math.log(100.0)).exp()

        bias: Tensor | None = self.qkv.bias
        if bias is not None:
            query, key, value = bias.chunk(3)
            bias = torch.cat([query, torch.zeros_like(key), value])
        return _in_windows(self, x, bias, scored)


def _in_windows(
    module: ShiftedWindowAttention, x: Tensor, bias: Tensor | None, scored: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Attention within shifted windows of x (B, h, w, C), which is padded with zeros to full windows."""
    batch, *size, _ = x.shape
    edges = module.window_size
    padded = [-(-length // edge) * edge for length, edge in zip(size, edges, strict=True)]
    shifts = [0 if edge >= length else s for length, edge, s in zip(padded, edges, module.shift_size, strict=True)]
    x = F.pad(x, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0])).roll([-s for s in shifts], (1, 2))
    counts = [length // edge for length, edge in zip(padded, edges, strict=True)]
    q, k, v = _parts(F.linear(_windows(x, edges, counts), module.qkv.weight, bias), module.num_heads)
    scores = scored(q, k) + module.get_relative_position_bias()
    if any(shifts):
        rows, columns = (_regions(*each) for each in zip(padded, edges, shifts, strict=True))
        region = _windows((3 * rows[:, None] + columns).to(x)[None, ..., None], edges, counts)[..., 0]
        apart = torch.where(region[:, None, :, None] == region[:, None, None], 0.0, -100.0)
        scores = (scores.unflatten(0, (batch, -1)) + apart).flatten(0, 1)
    weights = F.dropout(scores.softmax(-1), module.attention_dropout, module.training)
    made: Tensor = F.dropout(module.proj(_merged(weights @ v)), module.dropout, module.training)
    made = made.unflatten(1, edges).unflatten(0, (batch, *counts)).transpose(2, 3)  # type: ignore[no-untyped-call]
    made = made.flatten(3, 4).flatten(1, 2).roll(shifts, (1, 2))
    return made[:, : size[0], : size[1]]


def _regions(length: int, edge: int, shift: int) -> Tensor:
    """For each index along a rolled axis the number of its part; three parts do not attend to each other."""
    at = torch.arange(length)
    return (at >= length - edge).long() + (at >= length - shift).long() if shift else torch.zeros_like(at)


def _windows(x: Tensor, edges: Sequence[int], counts: Sequence[int]) -> Tensor:
    """(B, h, w, C) as (B n, N, C)."""
    x = x.unflatten(2, (counts[1], edges[1])).unflatten(1, (counts[0], edges[0]))  # type: ignore[no-untyped-call]
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


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
    ShiftedWindowAttention: _ShiftedWindows,
    ShiftedWindowAttentionV2: _ShiftedWindowsV2,
    davit.WindowAttention: _WindowAttention,
    davit.ChannelAttention: _ChannelAttention,
    davit.ChannelAttentionV2: _ChannelAttentionV2,
}
