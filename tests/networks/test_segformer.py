"""SegFormer: published sizes, the encoder and the head against their equations in float64, cuts, export."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.efficient_attention import EfficientAttention
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.encoders.mit import VARIANTS, MixTransformer
from hardy.ops.cost import gmacs, parameters
from hardy.pruning.remove import replay
from hardy.registry import DECODERS

REDUCTIONS = (8, 4, 2, 1)


@pytest.fixture(scope="module")
def encoder() -> MixTransformer:
    torch.manual_seed(0)
    return unlike_its_draw(MixTransformer("mit_b0").double().eval())


def unlike_its_draw(module: Any) -> Any:
    """The module with no bias at 0 and no norm at the identity, in place."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module


# sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "encoder", "head"),
    [  # the authors' release, counted; the head has 19 classes
        ("b0", 3_319_392, 399_635),
        ("b1", 13_151_424, 530_707),
        ("b2", 24_196_288, 3_164_947),
        ("b3", 44_072_128, 3_164_947),
        ("b4", 60_842_688, 3_164_947),
        ("b5", 81_443_008, 3_164_947),
    ],
)
def test_parameters_are_the_published_ones(variant: str, encoder: int, head: int) -> None:
    with torch.device("meta"):
        network = create("segformer", "cityscapes19", variant=variant, projection="linear")
    assert parameters(network.backbone) == encoder == by_formula(f"mit_{variant}")
    assert parameters(network.head) == head
    width = 256 if variant in ("b0", "b1") else 768
    assert network.head.classifier.in_channels == width


def by_formula(name: str) -> int:
    widths, depths = VARIANTS[name]
    total, before = 0, 3
    for c, depth, reduction, kernel in zip(widths, depths, REDUCTIONS, (7, 3, 3, 3), strict=True):
        attention = 4 * c * c + 4 * c + (c * c * reduction**2 + 3 * c if reduction > 1 else 0)
        feed_forward = 8 * c * c + 5 * c + 4 * c * (9 + 1)
        total += before * c * kernel**2 + c + 2 * c + depth * (4 * c + attention + feed_forward) + 2 * c
        before = c
    return total


@pytest.mark.costly
def test_b0_of_the_check_table() -> None:
    network = create("segformer", "cityscapes19")
    assert parameters(network) == 3_720_051
    assert parameters(network) - parameters(create("segformer", "cityscapes19", projection="linear")) == 4 * 256
    assert gmacs(network, (512, 1024)) == pytest.approx(17.757, rel=1e-4)
    assert gmacs(network, (1024, 2048)) == pytest.approx(120.957, rel=1e-4)


def test_b5_has_239_heads() -> None:
    with torch.device("meta"):
        network = create("segformer", "cityscapes19", variant="b5")
    heads = [layer.num_heads for layer in network.modules() if isinstance(layer, EfficientAttention)]
    assert sum(heads) == 239
    assert heads == [1] * 3 + [2] * 6 + [5] * 40 + [8] * 3


# the encoder ----------------------------------------------------------------------------------------------------------


def by_the_equations(encoder: MixTransformer, images: Tensor) -> list[Tensor]:
    """Section 3.1 of the paper from the weights alone: every width is read from them."""
    weights = encoder.state_dict()
    blocks = {name: layer.num_heads for name, layer in encoder.named_modules() if isinstance(layer, EfficientAttention)}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def conv(x: Tensor, name: str, stride: int, padding: int, groups: int = 1) -> Tensor:
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, stride, padding, 1, groups).permute(0, 2, 3, 1)

    def attention(x: Tensor, name: str, heads: int, reduction: int) -> Tensor:
        context = x if reduction == 1 else norm(conv(x, f"{name}.sr", reduction, 0), f"{name}.norm")
        q = torch.stack(linear(x, f"{name}.q").flatten(1, 2).chunk(heads, -1), 1)
        k, v = torch.stack(linear(context, f"{name}.kv").flatten(1, 2).chunk(2 * heads, -1), 1).chunk(2, 1)
        expected = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        return linear(torch.cat(expected.unbind(1), -1), f"{name}.proj").reshape(x.shape)

    x, maps = images.permute(0, 2, 3, 1), []
    for stage, reduction in enumerate(REDUCTIONS, start=1):
        stride, padding = (4, 3) if stage == 1 else (2, 1)
        x = norm(conv(x, f"patch_embed{stage}.proj", stride, padding), f"patch_embed{stage}.norm")
        for name, heads in blocks.items():
            if name.startswith(f"block{stage}."):
                block = name.removesuffix(".attn")
                x = x + attention(norm(x, f"{block}.norm1"), name, heads, reduction)
                hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
                hidden = conv(hidden, f"{block}.mlp.dwconv.dwconv", 1, 1, hidden.shape[-1])
                x = x + linear(F.gelu(hidden), f"{block}.mlp.fc2")
        x = norm(x, f"norm{stage}")
        maps.append(x.permute(0, 3, 1, 2))
    return maps


@pytest.mark.parametrize("size", [(64, 96), (45, 77)])
def test_the_encoder_is_its_equations(encoder: MixTransformer, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        for ours, theirs in zip(encoder(images), by_the_equations(encoder, images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
            assert ours.std() > 0.1


def test_every_width_can_be_cut() -> None:
    """Half the last stage's residual stream, half a hidden layer and a head, cut from the layers alone."""
    torch.manual_seed(0)
    encoder = unlike_its_draw(MixTransformer("mit_b0").double().eval())
    kept, hidden = list(range(0, 256, 2)), list(range(512))
    plan: dict[str, dict[str, list[int]]] = {"patch_embed4.proj": {"out": kept}}
    for place in ("block4.0", "block4.1"):
        plan |= {f"{place}.{name}": {"in": kept} for name in ("attn.q", "attn.kv")}
        plan |= {f"{place}.mlp.fc1": {"in": kept, "out": hidden}, f"{place}.mlp.dwconv.dwconv": {"out": hidden}}
        plan |= {f"{place}.mlp.fc2": {"in": hidden, "out": kept}, f"{place}.attn.proj": {"out": kept}}
    attention = encoder.get_submodule("block4.1.attn")
    rows = [row for row in range(256) if row // 32 != 3]
    plan["block4.1.attn.q"]["out"] = plan["block4.1.attn.proj"]["in"] = rows
    plan["block4.1.attn.kv"]["out"] = rows + [256 + row for row in rows]
    replay(encoder, plan)
    attention.num_heads -= 1
    for name, layer in encoder.named_modules():
        if isinstance(layer, nn.LayerNorm) and name.startswith(("patch_embed4", "block4", "norm4")):
            layer.weight, layer.bias = nn.Parameter(layer.weight[kept]), nn.Parameter(layer.bias[kept])
            layer.normalized_shape = (len(kept),)
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        maps = encoder(images)
        torch.testing.assert_close(maps, by_the_equations(encoder, images), rtol=1e-9, atol=1e-9)
    assert maps[-1].shape == (1, 128, 2, 3)


def test_blocks_are_skipped_more_often_the_deeper_they_lie() -> None:
    network = create("segformer", "camvid11", drop_path=0.7)
    rates = [block.drop_path.p for stage in range(1, 5) for block in network.backbone.get_submodule(f"block{stage}")]
    assert rates == pytest.approx([0.1 * place for place in range(8)])
    last = network.backbone.get_submodule("block4")[-1]
    x = torch.randn(1000, 1, 1, 256)
    with torch.no_grad():
        skipped = (last.train()(x) == x).flatten(1).all(1).float().mean()
    assert skipped == pytest.approx(0.7**2, abs=0.06)  # both halves
    assert not (last.eval()(x) == x).flatten(1).all(1).any()


# the head and the network ---------------------------------------------------------------------------------------------


def test_the_linear_head_is_its_equation() -> None:
    torch.manual_seed(0)
    head = (
        DECODERS.build(
            "segformer", {"channels": [3, 5], "strides": [4, 8], "class_count": 2}, width=6, projection="linear"
        )
        .double()
        .eval()
    )
    fine, coarse = torch.randn(1, 3, 6, 9).double(), torch.randn(1, 5, 3, 5).double()
    wide = [F.conv2d(x, layer.weight, layer.bias) for layer, x in zip(head.projections, (fine, coarse), strict=True)]
    wide[1] = F.interpolate(wide[1], (6, 9), mode="bilinear", align_corners=False)
    mixed = torch.einsum("oc,bchw->bohw", head.fuse[0].weight[..., 0, 0], torch.cat(wide, dim=1))
    mixed = (mixed / (1 + head.fuse[1].eps) ** 0.5).relu()  # a batch norm that has seen nothing
    expected = torch.einsum("oc,bchw->bohw", head.classifier.weight[..., 0, 0], mixed)
    torch.testing.assert_close(head([fine, coarse]), expected)


def test_features_are_the_four_stages_at_any_size() -> None:
    network = create("segformer", "camvid11").eval()
    with torch.no_grad():
        outputs = network.outputs(torch.rand(1, 3, 321, 517))
        assert network(torch.rand(1, 3, 32, 32)).shape == (1, 11, 32, 32)
        with pytest.raises(InputError, match="at least 32x32 pixels, not 31x40"):
            network(torch.rand(1, 3, 31, 40))
    assert outputs.logits.shape == (1, 11, 321, 517)
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes.pop("logits") == (11, 80, 128)
    assert shapes == {"stage1": (32, 80, 128), "stage2": (64, 40, 64), "stage3": (160, 20, 32), "stage4": (256, 10, 16)}


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "mit_b0", "decoder": "segformer", "aux": True},
        {"encoder": "mit_b0", "decoder": "deeplabv3plus", "decoder_options": {"width": 32}},
        {"encoder": "resnet18", "decoder": "segformer", "decoder_options": {"width": 32}},
        {"encoder": "vit_tiny_patch16_224", "decoder": "segformer", "decoder_options": {"projection": "linear"}},
    ],
)
def test_encoder_and_head_go_with_others(options: dict[str, Any]) -> None:
    network = create("encoder_decoder", "camvid11", **options).eval()
    with torch.no_grad():
        outputs = network.outputs(torch.rand(1, 3, 97, 131))
    assert outputs.logits.shape == (1, 11, 97, 131)
    assert list(outputs.features) == ["stage1", "stage2", "stage3", "stage4"]
    assert len(network.train().outputs(torch.rand(2, 3, 64, 64)).extras) == int(options.get("aux", False))


def test_the_epsilons_of_its_layer_norms() -> None:
    network = create("segformer", "camvid11", eps=1e-5, embedding_eps=1e-4)
    found = {name: layer.eps for name, layer in network.named_modules() if isinstance(layer, torch.nn.LayerNorm)}
    coarse = {name: eps for name, eps in found.items() if "patch_embed" in name or name.endswith("attn.norm")}
    assert set(coarse.values()) == {1e-4}
    assert len(coarse) == 4 + 3 * 2
    assert {eps for name, eps in found.items() if name not in coarse} == {1e-5}
    plain = create("segformer", "camvid11").modules()
    assert {layer.eps for layer in plain if isinstance(layer, torch.nn.LayerNorm)} == {1e-6}
    for name in ("eps", "embedding_eps"):
        with pytest.raises(InputError, match=rf"SegFormer\.{name}: 0.0 is out of range"):
            create("segformer", "camvid11", **{name: 0})
