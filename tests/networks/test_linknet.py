"""LinkNet: published sizes, its decoder against PyTorch's own output sizes in float64, other encoders, cuts."""

import logging

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.decoders.linknet import LinkNetDecoder
from hardy.ops.cost import gmacs, parameters
from surgery import halved


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return create("linknet", "cityscapes19")


def test_size(network: Network) -> None:
    assert parameters(network) == 11_535_699
    assert gmacs(network, (512, 1024)) == pytest.approx(21.752, rel=1e-3)
    assert gmacs(network, (1024, 2048)) == pytest.approx(87.007, rel=1e-3)
    assert gmacs(network, (1024, 2048), training=True) == pytest.approx(87.007, rel=1e-3)


def test_strides_and_widths(network: Network) -> None:
    with torch.no_grad():
        outputs = network.eval().outputs(torch.rand(1, 3, 64, 96))
    features = outputs.features
    shapes = {name: tuple(value.shape[1:]) for name, value in {**features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stem": (64, 16, 24),
        "stage1": (64, 16, 24),
        "stage2": (128, 8, 12),
        "stage3": (256, 4, 6),
        "stage4": (512, 2, 3),
        "logits": (19, 64, 96),
    }
    assert all(float(features[f"stage{number}"].min()) == 0 for number in range(1, 5)), "after the ReLU"


@pytest.mark.parametrize("size", [(45, 33), (90, 160)])  # the second is a quarter of the paper's own 360x640
def test_the_decoder_adds_up_with_the_sizes_of_its_skips(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    channels, strides = (8, 8, 12, 16), (4, 4, 8, 16)
    decoder = LinkNetDecoder(channels, strides, 5).double().eval()
    for parameter in decoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    sizes = [tuple(-(-side // stride) for side in size) for stride in strides]
    maps = [torch.randn(2, c, *s, dtype=torch.float64) for c, s in zip(channels, sizes, strict=True)]
    x = maps[-1]
    for block, skip in zip(decoder.blocks, reversed(maps[:-1]), strict=True):
        stride = 1 if skip.shape[-2:] == x.shape[-2:] else 2
        extra = [wanted - (stride * (side - 1) + 1) for wanted, side in zip(skip.shape[-2:], x.shape[-2:], strict=True)]
        y = F.conv_transpose2d(block.reduce(x), block.up.weight, None, stride, padding=1, output_padding=extra)
        x = skip + block.widen(F.relu(block.norm(y)))
    y = decoder.mix[2](decoder.mix[1](F.conv2d(decoder.up(x), decoder.mix[0].weight, decoder.mix[0].bias, padding=1)))
    expected = F.conv_transpose2d(y, decoder.classifier.weight, decoder.classifier.bias, 2)
    logits = decoder(maps)
    assert logits.shape == (2, 5, 4 * sizes[0][0], 4 * sizes[0][1])
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.exhaustive
def test_the_encoder_takes_the_weights_of_timm(tmp_path, network: Network) -> None:  # type: ignore[no-untyped-def]
    reference = timm.create_model("resnet18")
    torch.save(reference.state_dict(), tmp_path / "r18.pth")
    trained = create("linknet", "pacs7", encoder_weights=str(tmp_path / "r18.pth"))
    assert trained.pretrained
    assert list(trained.encoder()) == [trained.backbone]
    images = torch.rand(1, 3, 65, 97)
    reference.eval()
    with torch.no_grad():
        theirs: list[Tensor] = reference.forward_intermediates(images, intermediates_only=True)
        sums = trained.backbone.eval()(images)
    for ours, other in zip(sums, theirs[1:], strict=True):
        torch.testing.assert_close(F.relu(ours), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"encoder": "resnet10t"}, {"encoder": "resnet10t", "output_stride": 16}])
def test_its_decoder_works_on_other_encoders(options: dict, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[type-arg]
    with caplog.at_level(logging.ERROR):
        other = create("encoder_decoder", "pacs7", decoder="linknet", **options).eval()
    outputs = other.outputs(torch.rand(1, 3, 75, 97))
    assert outputs.logits.shape == (1, 7, 75, 97)
    assert outputs.coarse.shape == (1, 7, *other.fitted((75, 97)))
    assert len(other.decoder.blocks) == 3


@pytest.mark.parametrize(
    ("channels", "strides", "words"),
    [
        ((8, 8), (16, 16), "start at 4.* has 16, 16"),
        ((8, 8), (4, 16), "double or stay"),
        ((8, 10), (4, 8), "of 4.* has 8, 10"),
    ],
)
def test_what_it_cannot_add_is_refused(channels: tuple[int, ...], strides: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LinkNetDecoder(channels, strides, 3)


def test_one_image_of_an_odd_size_trains(network: Network) -> None:
    loss = network.train()(torch.rand(1, 3, 75, 101)).square().mean()
    assert bool(loss.isfinite())


@pytest.mark.exhaustive
def test_half_of_it_can_go() -> None:
    assert halved(create("linknet", "pacs7")) > 0.9
