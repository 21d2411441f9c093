"""FANet: published sizes, strides, the way down, auxiliary heads, encoder weights, cuts."""

from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional as F

from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from hardy.registry import LOSSES
from surgery import halved

COARSEST = 9 * 512 * 128
"""Weights of the convolution at stride 64 that only an auxiliary head reads; the published code always runs it."""
UNUSED = (COARSEST + 2 * 128) + (9 * 128 * 128 + 2 * 128) + (64 * 32 + 2 * 32)
"""Parameters of the published code that nothing reads: at strides 64 (without auxiliary heads), 16 and 8."""


@pytest.mark.parametrize(("variant", "count", "cost"), [(18, 13_820_032, 47.393), (34, 23_928_192, 66.721)])
def test_size(variant: int, count: int, cost: float) -> None:
    network = create("fanet", "cityscapes19", variant=variant, published=True)
    assert parameters(network) + UNUSED == count
    assert gmacs(network, (1024, 2048)) + COARSEST * 16 * 32 / 1e9 == pytest.approx(cost, rel=1e-3)
    plain = create("fanet", "cityscapes19", variant=variant)
    assert parameters(plain) == parameters(network)
    border = [(wide * wide // 2) * (2 * (h + w) + 4) for wide, h, w in ((512, 16, 32), (256, 32, 64), (128, 64, 128))]
    apart = gmacs(network, (1024, 2048)) - gmacs(plain, (1024, 2048))
    assert apart == pytest.approx(sum(border) / 1e9, rel=1e-6)


@pytest.mark.costly
def test_size_with_auxiliary_heads() -> None:
    network = create("fanet", "cityscapes19", aux=True)
    assert parameters(network) + UNUSED - (COARSEST + 2 * 128) == 13_970_176
    heads = [(9 * 128 * 64 + 64 * 19) * cells for cells in (16 * 32, 32 * 64)]
    more = gmacs(network, (1024, 2048), training=True) - gmacs(network, (1024, 2048))
    assert more == pytest.approx((COARSEST * 16 * 32 + sum(heads)) / 1e9, rel=1e-6)


def test_strides_and_widths() -> None:
    network = create("fanet", "cityscapes19", aux=True).eval()
    images = torch.rand(1, 3, 128, 192)
    outputs = network.outputs(images)
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stage1": (64, 16, 24),
        "stage2": (128, 8, 12),
        "stage3": (256, 4, 6),
        "stage4": (512, 2, 3),
        "fine": (128, 16, 24),
        "coarse": (128, 4, 6),
        "fused": (256, 16, 24),
        "logits": (19, 16, 24),
    }
    extras = network.train().outputs(images.expand(2, -1, -1, -1)).extras
    assert {name: tuple(value.shape) for name, value in extras.items()} == {
        "aux_coarsest": (2, 19, 2, 3),
        "aux_coarse": (2, 19, 4, 6),
    }


def test_coarse_maps_are_added_on_the_way_down() -> None:
    torch.manual_seed(0)
    network = create("fanet", "pacs7").eval()
    seen: list[torch.Tensor] = []
    network.fine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = network.outputs(torch.rand(1, 3, 75, 101)).features
    x = network.attention[3](features["stage4"])
    for level in (2, 1, 0):
        finer = network.attention[level](features[f"stage{level + 1}"])
        x = finer + F.interpolate(network.down[level](x), finer.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0], x)


def test_auxiliary_terms_are_halved() -> None:
    network = create("fanet", "pacs7", aux=True)
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    labels = torch.randint(0, 7, (2, 64, 96))
    terms = network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 7}))
    for name, value in outputs.extras.items():
        enlarged = F.interpolate(value, (64, 96), mode="bilinear", align_corners=False)
        assert terms[name].item() == pytest.approx(0.5 * F.cross_entropy(enlarged, labels).item(), rel=1e-5)


def test_the_published_form_adds_up_and_has_a_border() -> None:
    torch.manual_seed(0)
    network = create("fanet", "pacs7", published=True).eval()
    assert not any(attention.mean for attention in network.attention)
    for down, wide in zip(network.down, (128, 256, 512), strict=True):
        assert down(torch.rand(1, wide, 4, 6)).shape == (1, wide // 2, 6, 8)
    found = network.outputs(torch.rand(1, 3, 75, 101))
    corners = F.interpolate(found.coarse, (75, 101), mode="bilinear", align_corners=True)
    assert torch.equal(found.logits, corners)
    fine = found.features["fine"]
    coarse = F.interpolate(found.features["coarse"], fine.shape[-2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(found.features["fused"], network.mix(torch.cat([coarse, fine], dim=1)))


def test_the_encoder_takes_the_weights_of_timm(tmp_path: Path) -> None:
    reference = timm.create_model("resnet18")
    torch.save(reference.state_dict(), tmp_path / "r18.pth")
    network = create("fanet", "pacs7", encoder_weights=str(tmp_path / "r18.pth"))
    own, theirs = network.backbone.state_dict(), reference.state_dict()
    new = {name for name in own if name not in theirs}
    assert {name.rsplit(".", 2)[0] for name in new} == {"layer1.0.downsample"}
    assert all(torch.equal(own[name], theirs[name]) for name in own if name not in new)
    assert list(network.encoder()) == [network.backbone]


@pytest.mark.costly
@pytest.mark.parametrize("size", [(64, 65), (97, 160)])
def test_masked_it_computes_the_same(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for published in (False, True):
        torch.manual_seed(0)
        network = create("fanet", "pacs7", published=published).double().eval()
        for norm in (layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
            torch.nn.init.normal_(norm.bias)
        images = torch.rand(2, 3, *size, dtype=torch.float64)
        plain = network(images)
        with monkeypatch.context() as patch:
            patch.setattr("hardy.networks.fanet.is_open", lambda x: True)
            torch.testing.assert_close(network(images), plain, rtol=1e-9, atol=1e-9)


def test_one_small_image_trains() -> None:
    network = create("fanet", "pacs7", aux=True)
    outputs = network.outputs(torch.rand(1, 3, 50, 40))
    total = sum(value.square().mean() for value in (outputs.logits, *outputs.extras.values()))
    assert bool(total.isfinite())


@pytest.mark.costly
def test_half_of_it_can_go() -> None:
    assert halved(create("fanet", "pacs7")) > 0.7
