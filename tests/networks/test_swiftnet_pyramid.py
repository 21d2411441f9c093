"""SwiftNet's pyramid: published size, which maps meet, split norms, encoder weights, masks, cuts."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from surgery import halved


def test_size() -> None:
    network = create("swiftnet_pyramid", "cityscapes19")
    assert parameters(network) == 12_056_275
    assert gmacs(network, (1024, 2048)) == pytest.approx(128.193, rel=1e-3)
    assert gmacs(network, (1024, 2048), training=True) == pytest.approx(128.193, rel=1e-3)


def test_strides_and_widths() -> None:
    outputs = create("swiftnet_pyramid", "pacs7").eval().outputs(torch.rand(1, 3, 97, 130))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stage1": (64, 24, 32),
        "stage2": (128, 12, 16),
        "stage3": (256, 6, 8),
        "stage4": (512, 3, 4),
        "fused": (128, 24, 32),
        "logits": (7, 24, 32),
    }


def test_maps_of_one_stride_are_added_from_the_coarsest_on() -> None:
    torch.manual_seed(0)
    network = create("swiftnet_pyramid", "pacs7").eval()
    images = torch.rand(1, 3, 97, 130)
    features = network.outputs(images).features
    x, maps = network.normalise(images), {}
    for level, size in enumerate([(96, 128), (48, 64), (24, 32)]):
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        for stage, (total, _) in enumerate(network.backbone(x, level)):
            stride = 4 * 2 ** (level + stage)
            assert total.shape[-2:] == (-(-96 // stride), -(-128 // stride))
            maps.setdefault(stride, []).append(network.narrow[stage](total))
    assert {stride: len(found) for stride, found in maps.items()} == {4: 1, 8: 2, 16: 3, 32: 3, 64: 2, 128: 1}
    y = maps[128][0]
    for step, stride in zip(network.ladder, (64, 32, 16, 8, 4), strict=True):
        skip = sum(maps[stride])
        y = step(F.interpolate(y, skip.shape[-2:], mode="bilinear", align_corners=False) + skip)
    torch.testing.assert_close(features["fused"], y, rtol=1e-4, atol=1e-4)


def test_sizes_of_the_image() -> None:
    """By half at a time without an option; as the authors have it each is taken from the whole image by cubics."""
    images = torch.rand(1, 3, 97, 130)
    for subsample in ("bilinear", "bicubic"):
        network = create("swiftnet_pyramid", "pacs7", levels=3, subsample=subsample).eval()
        seen: list[torch.Tensor] = []
        network.backbone.conv1.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            network(images)
        whole = network.normalise(images)
        half = F.interpolate(whole, (48, 64), mode=subsample, align_corners=False)
        source = half if subsample == "bilinear" else whole
        quarter = F.interpolate(source, (24, 32), mode=subsample, align_corners=False)
        for found, expected in zip(seen, (whole, half, quarter), strict=True):
            assert torch.equal(found, expected)


def test_each_size_has_norms_of_its_own_but_for_the_shortcuts() -> None:
    network = create("swiftnet_pyramid", "pacs7")
    network(torch.rand(2, 3, 128, 128))
    norms = [layer for layer in network.backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 3 * 17 + 3
    means = [layer.running_mean for layer in network.backbone.layer1[0].bn1]
    assert not torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])


@pytest.mark.exhaustive
def test_the_encoder_takes_the_weights_of_timm(tmp_path: Path) -> None:
    reference = timm.create_model("resnet18")
    for norm in (layer for layer in reference.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1)
    torch.save(reference.state_dict(), tmp_path / "r18.pth")
    network = create("swiftnet_pyramid", "pacs7", encoder_weights=str(tmp_path / "r18.pth")).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        theirs = reference.eval().forward_intermediates(images, intermediates_only=True)
        for level in range(3):
            ours = [F.relu(total) for total, _ in network.backbone(images, level)]
            for one, other in zip(ours, theirs[1:], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.save({**reference.state_dict(), "more": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="1 left over"):
        create("swiftnet_pyramid", "pacs7", encoder_weights=str(tmp_path / "other.pth"))


@pytest.mark.costly
@pytest.mark.parametrize("size", [(64, 65), (97, 160)])
def test_masked_it_computes_the_same(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = create("swiftnet_pyramid", "pacs7").double().eval()
    for norm in (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    plain = network(images)
    monkeypatch.setattr("hardy.networks.swiftnet_pyramid.is_open", lambda x: True)
    torch.testing.assert_close(network(images), plain, rtol=1e-9, atol=1e-9 * float(plain.detach().abs().max()))


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_other_numbers_of_sizes(levels: int) -> None:
    network = create("swiftnet_pyramid", "pacs7", levels=levels)
    assert len(network.ladder) == levels + 2
    assert network(torch.rand(1, 3, 75, 101)).shape == (1, 7, 75, 101)
    with pytest.raises(InputError, match=r"SwiftNetPyramid\.levels"):
        create("swiftnet_pyramid", "pacs7", levels=0)


@pytest.mark.exhaustive
def test_half_of_it_can_go() -> None:
    assert halved(create("swiftnet_pyramid", "pacs7")) > 0.7
