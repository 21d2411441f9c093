"""ESPNet: published sizes, where its levels and the image meet, few classes, odd sizes, cuts."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from surgery import halved


def space(count: int) -> LabelSpace:
    return LabelSpace("some", tuple(f"c{i}" for i in range(count)), tuple((i, 0, 0) for i in range(count)))


@pytest.mark.parametrize(
    ("options", "classes", "size", "count", "cost"),
    [
        ({}, 20, (512, 1024), 365_109, 4.780),
        ({}, 20, (1024, 2048), 365_109, 19.121),
        ({}, 19, (512, 1024), 363_462, 4.670),
        ({}, 19, (1024, 2048), 363_462, 18.681),
        ({"q": 5}, 20, (512, 1024), 267_957, 3.994),
        ({"q": 3}, 20, (512, 1024), 203_189, 3.470),
        ({"decoder": False}, 20, (512, 1024), 349_449, 3.470),
    ],
)
def test_size(options: dict[str, Any], classes: int, size: tuple[int, int], count: int, cost: float) -> None:
    network = create("espnet", space(classes), **options)
    assert parameters(network) == count
    assert gmacs(network, size) == pytest.approx(cost, rel=1e-3)


def test_training_costs_no_more() -> None:
    network = create("espnet", "pacs7", p=1, q=1)
    assert gmacs(network, (64, 96), training=True) == gmacs(network, (64, 96))


def test_strides_and_widths() -> None:
    outputs = create("espnet", "cityscapes19", p=1, q=1).eval().outputs(torch.rand(1, 3, 64, 96))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "level1": (19, 32, 48),
        "level2": (131, 16, 24),
        "level3": (256, 8, 12),
        "fused": (19, 32, 48),
        "logits": (19, 64, 96),
    }
    assert outputs.logits is outputs.coarse


def test_without_its_decoder_it_classifies_at_stride_8() -> None:
    outputs = create("espnet", "cityscapes19", p=1, q=1, decoder=False).eval().outputs(torch.rand(1, 3, 65, 96))
    assert outputs.coarse.shape == (1, 19, 8, 12)
    enlarged = F.interpolate(outputs.coarse, (65, 96), mode="bilinear", align_corners=False)
    assert torch.equal(outputs.logits, enlarged)


def test_two_levels_see_the_image_averaged() -> None:
    network = create("espnet", "pacs7", p=1, q=1).eval()
    seen: list[torch.Tensor] = []
    for norm in (network.norm1, network.norm2, network.norm3):
        norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.full((1, 3, 64, 64), 0.5)
    level3 = network.outputs(images).features["level3"]
    inside = network.normalise(images)[..., :1, :1]
    torch.testing.assert_close(seen[0][:, 16:, 1:, 1:], inside.expand(1, 3, 31, 31))  # zeros lie around the image
    torch.testing.assert_close(seen[0][:, 16:, :1, 1:2], inside * 6 / 9)
    torch.testing.assert_close(seen[1][:, 128:, 1:, 1:], inside.expand(1, 3, 15, 15))
    assert (seen[0].shape[1], seen[1].shape[1], seen[2].shape[1]) == (19, 131, 256)
    assert level3.shape[1] == 256


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_few_classes_have_a_decoder_too(classes: int) -> None:
    network = create("espnet", space(classes), p=1, q=1).eval()
    outputs = network.outputs(torch.rand(1, 3, 33, 47))
    assert outputs.logits.shape == (1, classes, 33, 47)
    assert outputs.features["fused"].shape[1] == 5


def test_one_image_of_an_odd_size_trains() -> None:
    network = create("espnet", "pacs7", p=1, q=1)
    loss = network(torch.rand(1, 3, 75, 101)).square().mean()
    loss.backward()
    assert all(value.grad is not None and bool(value.grad.isfinite().all()) for value in network.parameters())


def test_no_blocks_are_refused() -> None:
    for name in ("p", "q"):
        with pytest.raises(InputError, match=rf"ESPNet\.{name}"):
            create("espnet", "pacs7", **{name: 0})


def test_half_of_it_can_go() -> None:
    assert halved(create("espnet", "pacs7", p=1, q=1)) > 0.8


def test_half_of_the_published_layout_can_go() -> None:
    network = create("espnet", "pacs7", p=1, q=1, width=10, finest="convolution")
    assert network.eval().outputs(torch.rand(1, 3, 33, 47)).features["fused"].shape == (1, 10, 16, 24)
    assert halved(network) > 0.8
    with pytest.raises(InputError, match=r"ESPNet\.width: 4"):
        create("espnet", "pacs7", width=4)
