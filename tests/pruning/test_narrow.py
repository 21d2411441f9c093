"""Attentions with a class that allows fewer heads compute what they did."""

import copy

import pytest
import torch
from timm.models.davit import ChannelAttention, ChannelAttentionV2
from timm.models.davit import WindowAttention as DavitWindows
from timm.models.swin_transformer_v2 import WindowAttention as CosineAttention
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from hardy.pruning.narrow import narrow


def grown(build) -> nn.Module:
    """A network in which no parameter is constant, and no running mean zero."""
    torch.manual_seed(0)
    network = build().eval()
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point() and value.numel() > 1 and float(value.std()) < 1e-3:
                value.copy_(torch.rand_like(value) + 0.5)
    return network


@pytest.mark.parametrize("grouped", ["batched", "unbatched", "sequence first"])
def test_narrowed_attention_computes_what_torchs_does(grouped):
    torch.manual_seed(0)
    first = grouped == "batched"
    module = nn.MultiheadAttention(16, 4, batch_first=first, add_zero_attn=True, add_bias_kv=True)
    other = copy.deepcopy(module)
    narrow(other, "heads", 4)
    query, key = torch.rand(2, 5, 16), torch.rand(2, 7, 16)
    mask, padding = torch.rand(5, 7) > 0.7, torch.rand(2, 7) > 0.7
    if grouped == "unbatched":
        query, key, padding = query[0], key[0], padding[0]
    if grouped == "sequence first":
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    for options in (
        {},
        {"attn_mask": mask},
        {"key_padding_mask": padding},
        {"attn_mask": torch.rand(5, 7)},
        {"average_attn_weights": False},
        {"need_weights": False},
        {"attn_mask": torch.rand(4 if grouped == "unbatched" else 8, 5, 7)},
    ):
        (one, weights), (two, more) = module(query, key, key, **options), other(query, key, key, **options)
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
        assert (weights is None) == (more is None)
        if weights is not None:
            torch.testing.assert_close(more, weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize(
    ("edges", "shift", "bias"), [([3, 2], [1, 1], True), ([2, 4], [1, 2], False), ([4, 2], [0, 0], True)]
)
def test_narrowed_windows_compute_what_torchvisions_do(kind, edges, shift, bias):
    module = grown(lambda: kind(12, edges, shift, 3, qkv_bias=bias))
    other = copy.deepcopy(module)
    narrow(other, "heads", 3)
    x = torch.rand(2, 5, 6, 12)
    with torch.no_grad():
        torch.testing.assert_close(other(x), module(x), rtol=1e-5, atol=1e-6)


def test_narrowed_windows_of_timm_compute_what_they_do():
    module = grown(lambda: CosineAttention(12, (2, 2), 3))
    blocks = DavitWindows(12, (2, 2), 3), ChannelAttention(12, 3), ChannelAttentionV2(12, 3)
    for one, options in ((module, {}), (module, {"mask": torch.rand(4, 4, 4)}), *((block, {}) for block in blocks)):
        other, x = copy.deepcopy(one), torch.rand(8, 4, 12)
        narrow(other, "heads", 3)
        torch.testing.assert_close(other(x, **options), one(x, **options), rtol=1e-5, atol=1e-6)
