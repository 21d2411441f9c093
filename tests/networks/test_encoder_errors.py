"""Where timm fails with an assertion, Hardy says in one line: the option, its value, the fix."""

import pytest
import timm
import torch
from torch import nn

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.parts import pyramid

RIGID = ["dla34", "ghostnet_100", "dpn68", "hrnet_w18_small", "vgg11_bn", "ese_vovnet19b_dw", "selecsls42b"]


@pytest.mark.parametrize("name", RIGID)
@pytest.mark.parametrize("stride", [8, 16])
def test_an_encoder_that_cannot_dilate_says_so(name, stride):
    with torch.device("meta"), pytest.raises(InputError) as caught:
        create("encoder_decoder", "pacs7", encoder=name, output_stride=stride, decoder="linear")
    line = str(caught.value)
    assert line.startswith(
        f"output_stride {stride}: encoder {name!r} takes no output_stride, because it cannot dilate ("
    )
    assert line.endswith("; leave it out, or choose an encoder that can, such as resnet18")
    assert "\n" not in line


@pytest.mark.parametrize("network", ["encoder_decoder", "classifier"])
def test_a_size_that_an_encoder_does_not_take_comes_with_one_that_it_takes(network):
    options = {"decoder": "linear"} if network == "encoder_decoder" else {}
    halo = create(network, "pacs7", encoder="halonet26t", **options).eval()
    with torch.no_grad(), pytest.raises(InputError) as caught:
        halo(torch.rand(1, 3, 45, 33))
    assert str(caught.value) == (
        "encoder 'halonet26t' does not take 45x33 (AssertionError); sides such as 256x256 work (data.size, data.crop)"
    )
    with torch.no_grad():
        assert halo(torch.rand(1, 3, 256, 256)).shape[:2] == (1, 7)


def test_an_encoder_of_one_input_size_says_so():
    with (
        torch.device("meta"),
        pytest.raises(InputError, match="encoder 'levit_128s' takes one input size only"),
    ):
        create("encoder_decoder", "pacs7", encoder="levit_128s", decoder="linear")


def test_an_output_stride_that_changes_nothing_is_refused(monkeypatch):
    made = timm.create_model
    monkeypatch.setattr(pyramid.timm, "create_model", lambda name, output_stride=32, **rest: made(name, **rest))
    with (
        torch.device("meta"),
        pytest.raises(InputError, match=r"output_stride 8: .* still has a last map of stride 32"),
    ):
        create("encoder_decoder", "pacs7", encoder="resnet10t", output_stride=8)


class Headless(nn.Module):
    """A model of which timm lists no maps."""


class Moody(nn.Module):
    """A model that builds and never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = [{"num_chs": 8, "reduction": 4}, {"num_chs": 16, "reduction": 8}]
        self.weight = nn.Parameter(torch.zeros(1))

    def prune_intermediate_layers(self, *args, **keywords):
        return []

    def forward_intermediates(self, images, **keywords):
        raise IndexError("of timm's own")


def test_a_model_without_maps_and_one_that_never_runs(monkeypatch):
    monkeypatch.setattr(pyramid.timm, "create_model", lambda name, **rest: Headless())
    with pytest.raises(InputError, match=r"encoder 'resnet18' gives no maps .* \(AttributeError"):
        create("encoder_decoder", "pacs7")
    monkeypatch.setattr(pyramid.timm, "create_model", lambda name, **rest: Moody())
    network = create("encoder_decoder", "pacs7", decoder="linear")
    with pytest.raises(InputError, match=r"does not take 64x64 \(IndexError: of timm's own\); choose another encoder"):
        network(torch.rand(1, 3, 64, 64))


def test_any_error_of_the_library_while_building_is_one_line(monkeypatch):
    def broken(name, **rest):
        raise NotImplementedError("not\nthis one")

    monkeypatch.setattr(pyramid.timm, "create_model", broken)
    with pytest.raises(InputError, match=r"^encoder 'resnet18' cannot be built \(NotImplementedError: not this one\)"):
        create("encoder_decoder", "pacs7")
