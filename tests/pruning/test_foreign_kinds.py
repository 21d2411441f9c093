"""Networks of other hands: masked, removed, replayed, saved, trained and pruned again, they are one and the same."""

import copy
import json
from collections import Counter

import pytest
import timm
import torch
from timm.layers import ScaledStdConv2d, SelectiveKernel, SplitAttn, StdConv2d
from timm.models.davit import ChannelAttention, ChannelAttentionV2
from timm.models.davit import WindowAttention as DavitWindows
from timm.models.levit import Attention as LevitAttention
from timm.models.levit import AttentionDownsample
from timm.models.res2net import Bottle2neck
from timm.models.swin_transformer_v2 import WindowAttention as CosineAttention
from timm.models.tiny_vit import Attention as TinyAttention
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from hardy.pruning.mask import mask, prepare_mask
from hardy.pruning.masked import masked_copy
from hardy.pruning.remove import remove, replay
from hardy.pruning.units import survey

pytestmark = pytest.mark.slow

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class OwnStandardised(nn.Conv2d):
    """Weights standardised by hand, as many repositories do."""

    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / (variance + 1e-5).sqrt()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Add(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Tokens(nn.Module):
    """Patches, a layer of tokens (B, N, C), the mean token's classes."""

    def __init__(self, *layers: nn.Module, width: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(self._made(width), 5)

    def _made(self, width: int) -> int:
        with torch.no_grad():
            x = torch.zeros(2, 16, width)
            for layer in self.layers:
                x = layer(x)
        return x.shape[-1]

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Attended(nn.Module):
    """Torch's own attention between two inputs of the same or different widths."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(3, options.get("kdim", 16), 8, 8)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, **options)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        query, key = (one(x).flatten(2).transpose(1, 2) for one in (self.query, self.key))
        padding = torch.zeros(key.shape[:2], dtype=torch.bool)
        padding[:, -1] = True
        seen, _ = self.attention(query, key, key, key_padding_mask=padding)
        return self.head((query + seen).mean(1))


def conv(kind, **options):
    return lambda i, o, groups=1: kind(i, o, 3, padding=1, groups=groups, **options)


def plain(make, classes: int = 5) -> nn.Module:
    layers = make(3, 12), nn.ReLU(), Add(make(12, 16, 4), nn.ReLU(), make(16, 12)), nn.ReLU(), make(12, 10), nn.ReLU()
    return nn.Sequential(*layers, nn.Conv2d(10, classes, 1))


def normed(function, dim=0):
    return lambda i, o, groups=1: function(nn.Conv2d(i, o, 3, padding=1, groups=groups), dim=dim)


def shuffled(shuffle: nn.Module) -> nn.Module:
    narrow = nn.Conv2d(12, 16, 1, groups=2), nn.BatchNorm2d(16), nn.ReLU(), shuffle
    widen = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Conv2d(16, 12, 1, groups=2)
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12), Add(*narrow, *widen), nn.ReLU(), nn.Conv2d(12, 5, 1))


class Shuffle(nn.Module):
    def forward(self, x):
        return x.view(len(x), 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


def split(block: nn.Module, width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.ReLU(), block, nn.Conv2d(width, 5, 1))


def encoder(**options) -> nn.Module:
    layer = nn.TransformerEncoderLayer(24, 3, 32, dropout=0.0, batch_first=True, **options)
    return Tokens(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def res2net() -> nn.Module:
    down = nn.Conv2d(16, 64, 1, bias=False)
    block = Bottle2neck(16, 16, base_width=32, scale=4, downsample=down, act_layer=nn.ReLU, norm_layer=nn.BatchNorm2d)
    again = Bottle2neck(64, 16, base_width=32, scale=4, act_layer=nn.ReLU, norm_layer=nn.BatchNorm2d)
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), block, again, nn.Conv2d(64, 5, 1))


class Maps(nn.Module):
    """An attention of maps (B, h, w, C)."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(24), attention

    def forward(self, x):
        return x + self.attention(self.norm(x).unflatten(1, (4, 4))).flatten(1, 2)


class Squares(nn.Module):
    """Swin V2's or DaViT's windows: all pixels in one."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(24), attention

    def forward(self, x):
        return x + self.attention(self.norm(x))


NETWORKS = {
    "standardised": (lambda: plain(conv(StdConv2d)), {"filters": 2}),
    "scaled": (lambda: plain(conv(ScaledStdConv2d)), {"filters": 2}),
    "by hand": (lambda: plain(conv(OwnStandardised)), {"filters": 2}),
    "weight norm": (lambda: plain(normed(parametrizations.weight_norm)), {"filters": 2}),
    "weight norm of all": (lambda: plain(normed(parametrizations.weight_norm, None)), {"filters": 2}),
    "old weight norm": (lambda: plain(normed(weight_norm)), {"filters": 2}),
    "shuffle": (lambda: shuffled(nn.ChannelShuffle(2)), {"filters": 2}),
    "shuffle by hand": (lambda: shuffled(Shuffle()), {"filters": 2}),
    "radix": (lambda: split(SplitAttn(16, 16, norm_layer=nn.BatchNorm2d, rd_channels=8)), {"filters": 3}),
    "selective": (lambda: split(SelectiveKernel(16, 16, rd_channels=8)), {"filters": 3}),
    "res2net": (res2net, {"filters": 8}),
    "encoder": (encoder, {"heads": 2, "hidden": 2, "embedding": 1}),
    "encoder, norm first": (lambda: encoder(norm_first=True, bias=False), {"heads": 2, "hidden": 2, "embedding": 1}),
    "torchvision": (
        lambda: VisionTransformer(16, 4, 2, 3, 24, 32, num_classes=5),
        {"heads": 2, "hidden": 2, "embedding": 1},
    ),
    "attention": (Attended, {"heads": 1}),
    "attention of two widths": (lambda: Attended(kdim=8, vdim=8, bias=False), {"heads": 1}),
    "attention with a learned key": (lambda: Attended(add_bias_kv=True), {"heads": 1}),
    "cosine": (lambda: Tokens(Squares(CosineAttention(24, (4, 4), 3))), {"heads": 1, "embedding": 1}),
    "cosine, no bias": (lambda: Tokens(Squares(CosineAttention(24, (4, 4), 3, qkv_bias=False))), {"heads": 1}),
    "shifted": (lambda: Tokens(Maps(ShiftedWindowAttention(24, [3, 2], [1, 1], 3))), {"heads": 1, "embedding": 1}),
    "shifted, second": (
        lambda: Tokens(Maps(ShiftedWindowAttentionV2(24, [3, 2], [1, 1], 3))),
        {"heads": 1, "embedding": 1},
    ),
    "windows": (lambda: Tokens(Squares(DavitWindows(24, (4, 4), 3))), {"heads": 1, "embedding": 1}),
    "channels": (lambda: Tokens(Squares(ChannelAttention(24, 3))), {"heads": 1, "embedding": 1}),
    "channels, second": (lambda: Tokens(Squares(ChannelAttentionV2(24, 3))), {"heads": 1, "embedding": 1}),
    "levit": (
        lambda: Tokens(LevitAttention(24, 8, 3, 2.0, 4), AttentionDownsample(24, 32, 8, 4, 2.0, 2, 4)),
        {"heads": 2},
    ),
    "tiny vit": (lambda: Tokens(TinyAttention(24, 8, 3, 2, (4, 4))), {"heads": 1}),
}


def grown(build) -> nn.Module:
    """A network in which no parameter is constant, and no running mean zero."""
    torch.manual_seed(0)
    network = build().eval()
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point() and value.numel() > 1 and float(value.std()) < 1e-3:
                value.copy_(torch.rand_like(value) + 0.5)
    return network


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_masked_is_removed_is_replayed_and_goes_on(name):
    build, kinds = NETWORKS[name]
    network = grown(build)
    network(IMAGES)
    before = copy.deepcopy(network.state_dict())
    found = survey(network, IMAGES)
    counted = Counter(unit.kind for unit in found.units)
    assert {kind: counted[kind] for kind in kinds} == kinds, found.blocked
    assert set(found.blocked.values()) <= {"reaches the network's output"}
    removed = {unit.name: list(range(0, unit.size - 1, 3)) for unit in found.units if unit.size > 1}
    masked = masked_copy(network, found.units, removed)
    smaller, again = grown(build), grown(build)
    plan = remove(smaller, found.units, removed)
    replay(again, json.loads(json.dumps(plan)))
    again.load_state_dict(smaller.state_dict(), strict=True)
    assert list(again.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        expected = masked(IMAGES)
        assert float((expected - network(IMAGES)).abs().max()) > 1e-3
        torch.testing.assert_close(smaller(IMAGES), expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
        assert torch.equal(again(IMAGES), smaller(IMAGES))
    assert sum(p.numel() for p in smaller.parameters()) < 0.9 * sum(p.numel() for p in network.parameters())
    left = {unit.name: unit.size - len(removed.get(unit.name, ())) for unit in found.units}
    assert {unit.name: unit.size for unit in survey(smaller, IMAGES).units} == left
    smaller.train()(IMAGES).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in smaller.parameters())


@pytest.mark.parametrize("name", ["weight norm", "weight norm of all", "scaled"])
def test_masks_last_through_training(name):
    network = grown(NETWORKS[name][0])
    units = survey(network, IMAGES).units
    removed = {unit.name: [0, 2] for unit in units}
    zero = prepare_mask(network, units, removed)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        zero()
        optimiser.zero_grad()
        network(IMAGES).square().mean().backward()
        optimiser.step()
    zero()
    smaller = copy.deepcopy(network)
    remove(smaller, units, removed)
    torch.testing.assert_close(smaller(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


def test_what_is_left_of_a_normed_weight_is_what_it_was():
    for norm in (parametrizations.weight_norm, weight_norm):
        layer = norm(nn.Linear(6, 4))
        with torch.no_grad():
            layer(torch.zeros(1, 6))
        network = nn.Sequential(nn.Linear(2, 6), layer)
        weight = layer.weight.detach().clone()
        units = survey(network, torch.rand(3, 2)).units
        remove(network, units, {"0": [1, 4]})
        network(torch.rand(1, 2))
        torch.testing.assert_close(network[1].weight, weight[:, [0, 2, 3, 5]])


def test_the_mean_weights_of_all_heads_keep_the_heads():
    class Shown(Attended):
        def forward(self, x):
            query, key = (one(x).flatten(2).transpose(1, 2) for one in (self.query, self.key))
            seen, weights = self.attention(query, key, key)
            return self.head((query + seen).mean(1)) + weights.amax((1, 2)).unsqueeze(1)

    found = survey(grown(Shown), IMAGES)
    assert found.blocked["attention"] == "removing it changes the outputs of the network"
    assert "heads" not in {unit.kind for unit in found.units}


def test_a_mask_holds_where_torch_would_not_call_the_norms():
    network = grown(encoder)
    units = survey(network, IMAGES).units
    removed = {unit.name: [0, 1] for unit in units if unit.kind == "embedding"}
    smaller, masked = copy.deepcopy(network), copy.deepcopy(network)
    remove(smaller, units, removed)
    mask(masked, units, removed)
    with torch.no_grad():
        torch.testing.assert_close(masked(IMAGES), smaller(IMAGES), rtol=1e-4, atol=1e-5)


def test_other_parametrisations_are_named():
    layers = parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 1)
    found = survey(nn.Sequential(*layers), IMAGES)
    assert [unit.name for unit in found.units] == ["1"]
    assert found.blocked["0"] == "0 cannot be cut: its weight is computed by the parametrization _SpectralNorm"


@pytest.mark.costly
def test_attention_over_channels_is_named():
    network = timm.create_model("eca_resnet33ts", num_classes=5).eval()
    found = survey(network, torch.rand(2, 3, 32, 32))
    assert any("attn" in reason and ".conv" in reason for reason in found.blocked.values())
