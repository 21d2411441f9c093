"""SeaFormer: published sizes, its stages and head by their formulas, any size, cuts, export."""

import pytest
import torch
from repeats import without_repeats
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.networks.building.create import create
from hardy.networks.seaformer import SIZES
from hardy.ops.cost import gmacs, parameters
from hardy.pruning.units import survey
from surgery import halved


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("variant", "count", "cost"), [("s", 3_973_219, 7.661), ("b", 8_584_563, 13.287)])
def test_size(variant: str, count: int, cost: float, training: bool) -> None:
    network = create("seaformer", "cityscapes19", variant=variant)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048), training=training) == pytest.approx(cost, rel=2e-4)


def by_formula(variant: str, classes: int) -> int:
    """Parameters from the authors' table: kernel, expansion, channels, stride."""
    size = SIZES[variant]
    total, before = 27 * size.stem + 2 * size.stem, size.stem
    channels = []
    for stage in size.stages:
        for kernel, expansion, after, _ in stage:
            wide = before * (expansion or 1)
            total += (before + 2) * wide if expansion else 0
            total += (kernel**2 + 2) * wide + (wide + 2) * after
            before = after
        channels.append(before)
    fine = channels[1]
    last = channels[-len(size.keys) :]
    for c, keys, ratio, width in zip(last, size.keys, size.ratios, size.widths, strict=True):
        k, v = size.heads * keys, 2 * size.heads * keys
        attention = 2 * (c + 2) * k + (c + 2) * v + 2 * (v + 2) * v + (v + 2) * c + 64 * k
        attention += (9 + 2) * 2 * v + (2 * v + 2) * c
        hidden = ratio * c
        feed_forward = (c + 2) * hidden + 10 * hidden + (hidden + 2) * c
        total += size.depth * (attention + feed_forward) + (fine + 2) * width + (c + 2) * width
        fine = width
    return total + 3 * fine + (fine + 1) * classes


@pytest.mark.parametrize(("variant", "millions"), [("t", 1.7), ("s", 4.0), ("b", 8.6), ("l", 14.0)])
def test_parameters_are_those_of_the_table_and_the_published_ones(variant: str, millions: float) -> None:
    with torch.device("meta"):
        network = create("seaformer", "cityscapes19", variant=variant)
    assert parameters(network) == by_formula(variant, 19)
    assert by_formula(variant, 150) / 1e6 == pytest.approx(millions, abs=0.051), "published to one place, ADE20K"


@pytest.mark.parametrize(
    ("variant", "channels", "width"),
    [
        ("t", (16, 32, 64, 128, 160), 96),
        ("s", (24, 48, 96, 160, 192), 128),
        ("b", (32, 64, 128, 192, 256), 160),
        ("l", (64, 128, 192, 256, 320), 192),
    ],
)
def test_features(variant: str, channels: tuple[int, ...], width: int) -> None:
    network = create("seaformer", "camvid11", variant=variant).eval()
    with torch.no_grad():
        outputs = network.outputs(torch.rand(1, 3, 192, 200))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    sides = [(48, 48), (24, 24), (12, 12), (6, 6), (3, 3)]
    stages = {f"stage{n}": (c, *side) for n, c, side in zip(range(1, 6), channels, sides, strict=True)}
    assert shapes == {**stages, "fused": (width, 24, 24), "logits": (11, 24, 24)}
    assert len(network.transformers) == (3 if variant == "l" else 2)


def conv(x: Tensor, layer: nn.Sequential) -> Tensor:
    """The convolution and the batch norm, in evaluation mode."""
    norm = layer[1]
    y = layer[0](x)
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def test_the_head_multiplies_by_one_gate_after_the_other() -> None:
    torch.manual_seed(0)
    network = create("seaformer", "camvid11", variant="t").double()
    network(torch.rand(4, 3, 96, 96, dtype=torch.float64))  # running statistics other than the first ones
    network.eval()
    with torch.no_grad():
        outputs = network.outputs(torch.rand(2, 3, 160, 256, dtype=torch.float64))
        features = outputs.features
        x = features["stage2"]
        for inject, name in zip(network.inject, ("stage4", "stage5"), strict=True):
            gate = (conv(features[name], inject.gate) + 3).clamp(0, 6) / 6
            gate = F.interpolate(gate, x.shape[-2:], mode="bilinear", align_corners=False)
            x = conv(x, inject.local) * gate
        x = conv(x, network.fuse).relu()
        torch.testing.assert_close(features["fused"], x, rtol=1e-9, atol=1e-9)
        logits = F.conv2d(x, network.classifier.weight, network.classifier.bias)
        torch.testing.assert_close(outputs.coarse, logits, rtol=1e-9, atol=1e-9)


def test_only_the_last_stages_attend_and_each_block_adds_twice() -> None:
    torch.manual_seed(0)
    network = create("seaformer", "camvid11", variant="t").double().eval()
    images = torch.rand(1, 3, 192, 256, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # no bias at 0 and no norm as it starts
        features = network.outputs(images).features
        x = network.stem((images - network.mean) / network.std)
        for place, stage in enumerate(network.stages):
            for block in stage:
                x = block(x)
            if place >= 3:
                for block in network.transformers[place - 3]:
                    x = x + block.attention(x)
                    x = x + block.feed_forward(x)
            torch.testing.assert_close(features[f"stage{place + 1}"], x, rtol=1e-9, atol=1e-9)


def test_attention_only_passes_half_of_the_details_at_first() -> None:
    network = create("seaformer", "camvid11", variant="t").eval()
    attention = network.transformers[0][0].attention
    x = torch.rand(1, 128, 3, 4)
    side = torch.cat([attention.query(x), attention.key(x), attention.value(x)], dim=1)
    torch.testing.assert_close(attention(x), attention.detail(attention.depthwise(side).clamp(0, 6)) / 2)


@pytest.mark.costly
def test_every_layer_can_be_pruned() -> None:
    torch.manual_seed(0)
    network = without_repeats(create("seaformer", "camvid11", variant="t"))
    found = survey(network.eval())
    sizes = {unit.name.removeprefix("transformers."): unit.size for unit in found.units}
    assert (sizes["1.0.attention.query.0"], sizes["1.0.attention.value.0"]) == (24, 48), "of all heads at once"
    assert found.blocked == {"classifier": "reaches the network's output"}
    before = parameters(network)
    assert halved(network, found.units) == 1.0
    assert parameters(network) < 0.4 * before
