"""TopFormer: published sizes, the whole network by its formulas in float64, any size, cuts, export."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.networks.building.create import create
from hardy.networks.topformer import TopFormer
from hardy.ops.cost import gmacs, parameters
from hardy.pruning.units import survey
from surgery import halved


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("variant", "count", "cost", "half"),
    [("t", 1_372_755, 3.900, 0.937), ("s", 3_009_379, 8.338, 2.028), ("b", 5_028_979, 13.271, 3.242)],
)
def test_size(variant: str, count: int, cost: float, half: float, training: bool) -> None:
    network = create("topformer", "cityscapes19", variant=variant)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048), training=training) == pytest.approx(cost, rel=2e-4)
    assert gmacs(network, (512, 1024), training=training) == pytest.approx(half, rel=5e-4)


@pytest.mark.parametrize(
    ("variant", "channels", "width"),
    [("t", (16, 32, 64, 96), 128), ("s", (24, 48, 96, 128), 192), ("b", (32, 64, 128, 160), 256)],
)
def test_features(variant: str, channels: tuple[int, ...], width: int) -> None:
    outputs = create("topformer", "camvid11", variant=variant).outputs(torch.rand(1, 3, 128, 200))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    sides = [(32, 48), (16, 24), (8, 12), (4, 6)]
    stages = {f"stage{n}": (c, *side) for n, c, side in zip(range(1, 5), channels, sides, strict=True)}
    assert shapes == {
        **stages,
        "tokens": (sum(channels), 2, 3),
        "fused": (width, 16, 24),
        "logits": (11, 16, 24),
    }


# by the formulas ------------------------------------------------------------------------------------------------------


def conv(x: Tensor, layer: nn.Sequential, stride: int = 1, act: float | None = None) -> Tensor:
    """A convolution and a batch norm, in evaluation mode; then clamped to 0 .. ``act``."""
    filters, norm = layer[0].weight, layer[1]
    groups = x.shape[1] // filters.shape[1]
    y = F.conv2d(x, filters, None, stride, filters.shape[-1] // 2, 1, groups)
    mean, deviation = norm.running_mean[:, None, None], (norm.running_var + norm.eps).sqrt()[:, None, None]
    y = (y - mean) / deviation * norm.weight[:, None, None] + norm.bias[:, None, None]
    return y if act is None else y.clamp(0, act)


def by_the_formulas(network: TopFormer, images: Tensor) -> Tensor:
    """Logits at stride 8 of T, from the weights and the authors' table: kernel, expansion, channels, stride."""
    table = [
        [(3, 4, 16, 2), (3, 3, 16, 1)],
        [(5, 3, 32, 2), (5, 3, 32, 1)],
        [(3, 3, 64, 2), (3, 3, 64, 1)],
        [(5, 6, 96, 2), (5, 6, 96, 1)],
    ]
    endless = float("inf")
    x = conv((images - network.mean) / network.std, network.stem[0], 2, endless)
    x = x + conv(conv(x, network.stem[1].depthwise, 1, endless), network.stem[1].project)
    maps = []
    for rows, stage in zip(table, network.stages, strict=True):
        for (kernel, expansion, channels, stride), block in zip(rows, stage, strict=True):
            wide = conv(x, block.expand, 1, endless)
            assert wide.shape[1] == expansion * x.shape[1]
            assert block.depthwise[0].weight.shape[-1] == kernel
            y = conv(conv(wide, block.depthwise, stride, endless), block.project)
            assert y.shape[1] == channels
            x = x + y if stride == 1 else y
        maps.append(x)
    grid = tuple((side + 1) // 2 for side in maps[-1].shape[-2:])
    tokens = torch.cat([F.adaptive_avg_pool2d(x, grid) for x in maps], dim=1)
    for block in network.transformer:
        tokens = tokens + attention(block.attention, tokens)
        wide = conv(tokens, block.feed_forward.widen)
        near = block.feed_forward.depthwise
        wide = F.conv2d(wide, near.weight, near.bias, padding=1, groups=wide.shape[1]).clamp(0, 6)
        tokens = tokens + conv(wide, block.feed_forward.narrow)
    total: Tensor | float = 0.0
    parts = tokens.split([16, 32, 64, 96], dim=1)
    for inject, fine, part in zip(network.inject, maps[1:], parts[1:], strict=True):
        gate = (conv(part, inject.gate) + 3).clamp(0, 6) / 6
        y = conv(fine, inject.local) * up(gate, fine) + up(conv(part, inject.context), fine)
        total = total + up(y, maps[1])
    assert isinstance(total, Tensor)
    fused = conv(total, network.fuse, 1, endless)
    return F.conv2d(fused, network.classifier.weight, network.classifier.bias)


def attention(block: nn.Module, x: Tensor) -> Tensor:
    query, key, value = (conv(x, block.get_submodule(name)).flatten(2) for name in ("query", "key", "value"))
    heads = []
    for q, k, v in zip(query.split(16, 1), key.split(16, 1), value.split(32, 1), strict=True):
        heads.append(v @ (q.mT @ k).softmax(-1).mT)
    assert len(heads) == 4
    return conv(torch.cat(heads, 1).reshape(len(x), -1, *x.shape[-2:]).clamp(0, 6), block.get_submodule("project"))


def up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(128, 192), (96, 160)])
def test_it_is_its_formulas(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = create("topformer", "camvid11").double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # no bias at 0 and no norm as it starts
    network(torch.rand(4, 3, 96, 96, dtype=torch.float64))  # running statistics other than the first ones
    network.eval()
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        found = network.outputs(images).coarse
        torch.testing.assert_close(found, by_the_formulas(network, images), rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]


# sizes, options, cuts, export -----------------------------------------------------------------------------------------


def test_attention_says_nothing_at_first() -> None:
    network = create("topformer", "camvid11").eval()
    tokens = torch.rand(1, 208, 3, 4)
    assert not any(block.attention(tokens).any() for block in network.transformer)
    assert all(block.feed_forward(tokens).any() for block in network.transformer)


def test_blocks_are_skipped_more_often_the_deeper_they_lie() -> None:
    network = create("topformer", "camvid11", drop_path=0.3)
    assert [block.drop_path.p for block in network.transformer] == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.exhaustive
def test_every_layer_can_be_pruned() -> None:
    torch.manual_seed(0)
    network = create("topformer", "camvid11")
    found = survey(network.eval())
    kinds = [unit.kind for unit in found.units]
    assert [kinds.count(kind) for kind in ("heads", "hidden", "embedding")] == [4, 4, 4]
    assert found.blocked == {"classifier": "reaches the network's output"}
    before = parameters(network)
    assert halved(network, found.units) == 1.0
    assert parameters(network) < 0.4 * before
