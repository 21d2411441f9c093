"""DDRNet's sizes, where its branches meet, small images, and weights of an ImageNet training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from hardy.registry import LOSSES
from surgery import halved

HEAD = (9 * 64 * 64 + 64 * 19) * 128 * 256 / 1e9
"""GMACs of the slim network's auxiliary head by its weights, at stride 8."""

TABLE = [
    ({}, False, 5_695_987, 36.281),
    ({"aux": True}, False, 5_734_342, 36.281),
    ({"aux": True}, True, 5_734_342, 36.281 + HEAD),
    ({"variant": "23"}, False, 20_148_947, 143.061),
]


@pytest.mark.parametrize(("options", "training", "count", "cost"), TABLE)
def test_size(options: dict[str, Any], training: bool, count: int, cost: float) -> None:
    network = create("ddrnet", "cityscapes19", **options)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048), training=training) == pytest.approx(cost, rel=1e-3)


def test_features_and_their_strides() -> None:
    outputs = create("ddrnet", "cityscapes19", aux=True).outputs(torch.rand(2, 3, 128, 256))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stage1": (32, 32, 64),
        "stage2": (64, 16, 32),
        "stage3": (128, 8, 16),
        "stage4": (256, 4, 8),
        "stage5": (512, 2, 4),
        "detail": (128, 16, 32),
        "context": (128, 2, 4),
        "fused": (128, 16, 32),
        "logits": (19, 16, 32),
    }
    assert outputs.extras["aux_detail"].shape == (2, 19, 16, 32)


def test_each_branch_reaches_the_other_where_the_paper_says() -> None:
    """Equation 3: the exchange adds to a branch what the other held before it."""
    backbone = create("ddrnet", "camvid11").eval().backbone
    x = torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        maps, early, _ = backbone(x)
        second = F.relu(maps[1])
        third, detail = backbone.layer3(second), backbone.layer3_(second)
        up = F.interpolate(backbone.compression3(F.relu(third)), (16, 24), mode="bilinear", align_corners=False)
        torch.testing.assert_close(early, detail + up)
        torch.testing.assert_close(maps[2], third + backbone.down3(F.relu(detail)))
        fourth = backbone.layer4(F.relu(maps[2]))
        torch.testing.assert_close(maps[3], fourth + backbone.down4(F.relu(backbone.layer4_(F.relu(early)))))


def test_the_auxiliary_term_is_weighed() -> None:
    network = create("ddrnet", "camvid11", aux=True)
    outputs = network.outputs(torch.rand(2, 3, 64, 96))
    labels = torch.randint(0, 11, (2, 64, 96))
    terms = network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 11}))
    resized = F.interpolate(outputs.extras["aux_detail"], (64, 96), mode="bilinear", align_corners=False)
    assert terms["aux_detail"].item() == pytest.approx(0.4 * F.cross_entropy(resized, labels).item(), rel=1e-5)


def test_a_small_image_is_the_corner_of_one_of_128_pixels() -> None:
    network = create("ddrnet", "camvid11", aux=True)
    image = torch.rand(2, 3, 64, 160)
    large = network.mean.expand(2, 3, 128, 160).clone()
    large[..., :64, :] = image
    with torch.no_grad():
        small, whole = network.outputs(image), network.outputs(large)
    torch.testing.assert_close(small.coarse, whole.coarse[..., :8, :])
    torch.testing.assert_close(small.extras["aux_detail"], whole.extras["aux_detail"][..., :8, :])
    torch.testing.assert_close(small.logits[..., :60, :], whole.logits[..., :60, :])  # above the last half cell


@pytest.mark.parametrize("size", [(32, 32), (321, 517)])
def test_one_image_of_any_size_can_be_trained_on(size: tuple[int, int]) -> None:
    network = create("ddrnet", "camvid11", aux=True)
    assert network(torch.rand(1, 3, *size)).shape == (1, 11, *size)


@pytest.mark.exhaustive
def test_weights_of_a_classifier_fill_the_branches(tmp_path: Path) -> None:
    trained = create("ddrnet", "camvid11").backbone.state_dict()
    file = tmp_path / "trained.safetensors"
    save_file({**{f"model.{name}": value for name, value in trained.items()}, "model.linear.bias": torch.ones(9)}, file)
    network = create("ddrnet", "camvid11", encoder_weights=str(file))
    assert all(torch.equal(value, trained[name]) for name, value in network.backbone.state_dict().items())
    assert list(network.encoder()) == [network.backbone]
    del trained["down4.3.weight"]
    save_file(trained, file)
    with pytest.raises(InputError, match=r"missing \(down4\.3\.weight\)"):
        create("ddrnet", "camvid11", encoder_weights=str(file))


@pytest.mark.exhaustive
def test_every_layer_can_be_pruned() -> None:
    network = create("ddrnet", "camvid11")
    before = parameters(network)
    assert halved(network) == 1.0
    assert parameters(network) < 0.3 * before
