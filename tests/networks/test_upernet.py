"""UPerNet: its formula, its size, and maps of one stride."""

from typing import Any

import pytest
import torch
from repeats import without_repeats
from torch import Tensor
from torch.export import Dim
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.decoders.base import Decoder
from hardy.registry import DECODERS


def head(channels: tuple[int, ...], strides: tuple[int, ...], **options: Any) -> Decoder:
    torch.manual_seed(0)
    known = {"channels": channels, "strides": strides, "class_count": 3}
    return DECODERS.build("upernet", known, **{"width": 8, **options})


def stretched(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def test_two_maps_by_hand() -> None:
    decoder = head((4, 6), (8, 16), grids=(1, 2)).eval()
    fine, coarse = torch.rand(2, 4, 10, 14), torch.rand(2, 6, 5, 7)
    with torch.no_grad():
        one = decoder.pooled[0](coarse.mean((2, 3), keepdim=True)).expand(2, 8, 5, 7)
        two = stretched(decoder.pooled[1](F.adaptive_avg_pool2d(coarse, 2)), coarse)
        top = decoder.join(torch.cat([coarse, one, two], dim=1))
        below = decoder.smooth[0](decoder.lateral[0](fine) + stretched(top, fine))
        fused = decoder.fuse(torch.cat([below, stretched(top, fine)], dim=1))
        embedding, logits, _ = decoder.decode([fine, coarse])
    torch.testing.assert_close(embedding, fused)
    torch.testing.assert_close(logits, decoder.classifier(fused))


def test_parameters_of_the_usual_width_on_a_resnet_50() -> None:
    """Counted by the formula: 1x1 and 3x3 convolutions without bias, each with a norm, and the classifier."""
    channels, width, classes = (256, 512, 1024, 2048), 512, 19
    with torch.device("meta"):
        known = {"channels": channels, "strides": (4, 8, 16, 32), "class_count": classes}
        found = sum(value.numel() for value in DECODERS.build("upernet", known).parameters())
    pooled = 4 * (2048 * width + 2 * width) + 9 * (2048 + 4 * width) * width + 2 * width
    lateral = sum(wide * width + 2 * width for wide in channels[:-1]) + 3 * (9 * width * width + 2 * width)
    assert found == pooled + lateral + 9 * 4 * width * width + 2 * width + width * classes + classes


@pytest.mark.parametrize("encoder", ["resnet10t", "vit_tiny_patch16_224"])
def test_logits_come_at_a_quarter_of_the_image(encoder: str) -> None:
    made = create("encoder_decoder", "pacs7", encoder=encoder, decoder="upernet", decoder_options={"width": 16})
    outputs = made.outputs(torch.rand(2, 3, 64, 96))
    assert outputs.coarse.shape == (2, 7, 16, 24)
    outputs.logits.square().mean().backward()
    assert [key for key, value in made.named_parameters() if value.grad is None] == []
    assert made(torch.rand(1, 3, 45, 33)).shape == (1, 7, 45, 33)


@pytest.mark.costly
def test_one_exported_graph_takes_every_size() -> None:
    made = create("encoder_decoder", "pacs7", encoder="resnet10t", decoder="upernet", decoder_options={"width": 16})
    without_repeats(made).eval()
    sizes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    images = torch.rand(3, 3, 97, 160)
    with torch.no_grad():
        graph = torch.export.export(made, (torch.rand(2, 3, 64, 128),), dynamic_shapes=sizes).module()
        torch.testing.assert_close(graph(images), made(images), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="needs two maps; this encoder has 1"):
        head((4,), (8,))
    with pytest.raises(InputError, match=r"grids=\[0\]: give at least one side"):
        head((4, 6), (8, 16), grids=(0,))
    with pytest.raises(InputError, match="width"):
        head((4, 6), (8, 16), width=0)
