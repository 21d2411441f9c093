"""ICNet: published size, the three resolutions, pooling by sums, labels of auxiliary heads, encoder weights, cuts."""

from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.icnet import _pooled
from hardy.ops.cost import gmacs, parameters
from hardy.registry import LOSSES
from hardy.types import IGNORE
from surgery import halved


def test_size() -> None:
    network = create("icnet", "cityscapes19")
    assert parameters(network) == 6_699_987
    network.multiple = 1  # images as they are, as in the paper
    assert gmacs(network, (1025, 2049)) == pytest.approx(29.812, rel=1e-3)


@pytest.mark.costly
def test_size_with_auxiliary_heads() -> None:
    network = create("icnet", "cityscapes19", aux=True)
    assert parameters(network) == 6_699_987 + (256 + 1 + 128 + 1) * 19
    more = gmacs(network, (256, 256), training=True) - gmacs(network, (256, 256))
    assert more == pytest.approx(19 * (256 * 16**2 + 128 * 32**2) / 1e9, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, (64, 256, 1024, 128)),
        ({"width": 0.25}, (32, 128, 512, 64)),
        ({"backbone": "resnet18", "width": 0.5}, (64, 64, 256, 128)),
        ({"backbone": "resnet18", "width": 1.0}, (128, 128, 512, 256)),
    ],
)
def test_strides_and_widths(options: dict, widths: tuple[int, ...]) -> None:  # type: ignore[type-arg]
    outputs = create("icnet", "pacs7", **options).eval().outputs(torch.rand(1, 3, 97, 130))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    full, half, quarter, fused = widths
    assert shapes == {
        "full": (full, 12, 16),
        "half": (half, 6, 8),
        "quarter": (quarter, 3, 4),
        "fused": (fused, 24, 32),
        "logits": (7, 24, 32),
    }


def test_each_branch_sees_its_resolution() -> None:
    network = create("icnet", "pacs7", width=0.25).eval()
    seen: dict[str, torch.Tensor] = {}
    network.full.register_forward_pre_hook(lambda _, inputs: seen.update(full=inputs[0]))
    network.backbone.register_forward_pre_hook(lambda _, inputs: seen.update(half=inputs[0]))
    network.backbone.layer2[1].register_forward_pre_hook(lambda _, inputs: seen.update(quarter=inputs[0]))
    images = torch.rand(1, 3, 97, 130)
    features = network.outputs(images).features
    x = network.normalise(images)
    assert torch.equal(seen["full"], x)
    assert torch.equal(seen["half"], F.interpolate(x, (48, 64), mode="bilinear", align_corners=False))
    quarter = F.interpolate(features["half"], (3, 4), mode="bilinear", align_corners=False)
    assert torch.equal(seen["quarter"], quarter)
    dilations = [[block.filter[0].dilation[0] for block in stage] for stage in list(network.backbone.children())[1:]]
    assert dilations == [[1] * 3, [1] * 4, [2] * 6, [4] * 3]


def test_pooled_averages_are_added() -> None:
    x = torch.full((1, 2, 6, 12), 3.0)
    torch.testing.assert_close(_pooled(x), 5 * x)
    x = torch.zeros(1, 1, 6, 6)
    x[..., 0, 0] = 36.0
    # averages 1 (whole), 4 (a quarter), 9 (of a ninth), 36 (the cell itself); the corner is the nearest to all of them
    assert float(_pooled(x)[0, 0, 0, 0]) == 36 + 1 + 4 + 9 + 36
    assert float(_pooled(x)[0, 0, 5, 5]) == 1


def test_auxiliary_labels_are_those_of_the_nearest_pixels() -> None:
    torch.manual_seed(0)
    network = create("icnet", "pacs7", width=0.25, aux=True)
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    assert outputs.extras["aux_quarter"].shape == (2, 7, 4, 6)
    assert outputs.extras["aux_half"].shape == (2, 7, 8, 12)
    labels = torch.randint(0, 7, (2, 64, 96))
    labels[:, :40, :] = IGNORE
    terms = network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 7}))
    assert list(terms) == ["segmentation", "aux_quarter", "aux_half"]
    for name, weight, stride in [("aux_quarter", 0.16, 16), ("aux_half", 0.4, 8)]:
        near = labels[:, stride // 2 :: stride, stride // 2 :: stride]
        expected = weight * F.cross_entropy(outputs.extras[name], near, ignore_index=IGNORE)
        assert terms[name].item() == pytest.approx(expected.item(), rel=1e-5)
    whole = F.cross_entropy(outputs.logits, labels, ignore_index=IGNORE)
    assert terms["segmentation"].item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.exhaustive
def test_resnet18_takes_the_weights_of_timm(tmp_path: Path) -> None:
    reference = timm.create_model("resnet18")
    torch.save(reference.state_dict(), tmp_path / "r18.pth")
    network = create("icnet", "pacs7", backbone="resnet18", width=1.0, encoder_weights=str(tmp_path / "r18.pth"))
    assert list(network.encoder()) == [network.backbone]
    theirs = reference.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in network.backbone.state_dict().items())
    images = torch.rand(1, 3, 64, 96)
    half, _ = network.backbone.eval()(images)
    reference.eval()
    x = reference.layer1(reference.maxpool(reference.act1(reference.bn1(reference.conv1(images)))))
    torch.testing.assert_close(half, reference.layer2[0](x), rtol=1e-4, atol=1e-4)


def test_weights_that_cannot_fit_are_refused() -> None:
    for options in ({}, {"backbone": "resnet18"}, {"width": 1.0}):
        with pytest.raises(InputError, match="backbone='resnet18' at width=1"):
            create("icnet", "pacs7", encoder_weights="timm", **options)
    with pytest.raises(InputError, match=r"ICNet\.width"):
        create("icnet", "pacs7", width=0.01)


def test_one_image_of_an_odd_size_trains() -> None:
    network = create("icnet", "pacs7", width=0.25, aux=True)
    outputs = network.outputs(torch.rand(1, 3, 75, 101))
    sum(value.square().mean() for value in (outputs.logits, *outputs.extras.values())).backward()
    assert all(value.grad is not None and bool(value.grad.isfinite().all()) for value in network.parameters())


@pytest.mark.parametrize("backbone", [pytest.param("resnet50", marks=pytest.mark.exhaustive), "resnet18"])
def test_half_of_it_can_go(backbone: str) -> None:
    assert halved(create("icnet", "pacs7", width=0.25, backbone=backbone)) > 0.9
