"""The encoders of a style perturbation, and its artefact."""

import json
import os

import pytest
import torch
from torch import nn

import hardy
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.styles.dsp import first_layers, load_dsp, load_vgg, save_dsp
from hardy.networks.styles.first_layers import FirstLayers
from hardy.ops.dsp import Perturbation
from hardy.ops.style_vae import DVAE, mirror
from hardy.ops.vgg import VGG19


def made(network, stride=4):
    encoder = first_layers(network, stride)
    width = encoder.channels
    return Perturbation(
        encoder, DVAE(width).decoder, mirror(width, stride), torch.randn(width), torch.rand(width, width)
    )


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return create("tiny", "camvid11", width=8)


@pytest.fixture
def saved(tiny, tmp_path):
    return save_dsp(made(tiny), tmp_path / "style")


@pytest.mark.parametrize(
    ("name", "stride", "width", "taken"),
    [
        ("tiny", 2, 32, lambda net, x: net.detail[0](net.normalise(x))),
        ("tiny", 4, 32, lambda net, x: net.detail(net.normalise(x))),
        ("fast_scnn", 2, 32, lambda net, x: net.detail[0](net.normalise(x))),
        ("fast_scnn", 4, 48, lambda net, x: net.detail[:2](net.normalise(x))),
    ],
)
def test_first_layers_are_those_of_the_network(name, stride, width, taken):
    torch.manual_seed(0)
    network = create(name, "camvid11").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    encoder = FirstLayers(network, stride)
    images = torch.rand(2, 3, 66, 100)
    rows, columns = network.fitted((66, 100))
    maps = encoder.train()(images)
    assert network.training
    assert (encoder.channels, encoder.stride) == (width, stride)
    assert [one.shape[-2:] for one in maps] == [(rows // s, columns // s) for s in (2, 4) if s <= stride]
    assert torch.equal(maps[-1], taken(network.eval(), images))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert sum(p.numel() for p in encoder.parameters()) < 0.3 * sum(p.numel() for p in network.parameters())


def test_a_network_without_such_a_map_is_refused(tiny):
    deep = hardy.wrap(nn.Conv2d(3, 11, 16, stride=16), "camvid11", factory="a:b")
    with pytest.raises(InputError, match=r"has no map at stride 4; it has: none"):
        first_layers(deep, 4)
    with pytest.raises(InputError, match=r"cannot be saved; use hardy\.create"):
        first_layers(hardy.wrap(nn.Conv2d(3, 11, 1), "camvid11"), 2)
    tiny.changes = [{"change": "prune", "plan": {"detail.0.0": {"out": [0]}}}]
    with pytest.raises(InputError, match="this network is pruned or tuned; use the dense run"):
        first_layers(tiny, 4)


def test_what_is_loaded_draws_the_same_bits(tiny, tmp_path):
    given = made(tiny)
    torch.manual_seed(3)
    expected = torch.rand(1)
    save_dsp(given, tmp_path)
    torch.manual_seed(3)
    loaded = load_dsp(tmp_path)
    assert torch.equal(torch.rand(1), expected)  # loading draws nothing that the caller sees
    images, epsilon = torch.rand(2, 3, 32, 48), given.sample(2)
    assert torch.equal(loaded.stylise(images, epsilon), given.stylise(images, epsilon))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["style.json", "style.safetensors"]


def test_one_with_vgg_needs_no_file_of_weights_again(tmp_path):
    torch.manual_seed(0)
    given = Perturbation(VGG19(), DVAE(512).decoder, mirror(512, 8), torch.zeros(512), torch.eye(512))
    loaded = load_dsp(save_dsp(given, tmp_path))
    images, epsilon = torch.rand(1, 3, 20, 28), given.sample(1)
    copies = loaded.stylise(images, epsilon)
    assert torch.equal(copies, given.stylise(images, epsilon))
    assert copies.shape == images.shape


def test_a_folder_without_or_with_another_artefact_is_refused_in_one_line(saved, tmp_path):
    with pytest.raises(InputError, match=r"no style.json here, so this is not a finished run of style_vae"):
        load_dsp(tmp_path)
    described = json.loads((saved / "style.json").read_text())
    (saved / "style.json").write_text(json.dumps({**described, "format": "hardy-style/0"}))
    with pytest.raises(InputError, match="format 'hardy-style/0', but this Hardy reads"):
        load_dsp(saved)
    (saved / "style.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        load_dsp(saved)
    (saved / "style.json").write_text(json.dumps(described))
    (saved / "style.safetensors").write_bytes((saved / "style.safetensors").read_bytes()[:-4])
    with pytest.raises(InputError, match=r"style.safetensors does not match style.json"):
        load_dsp(saved)


def test_a_pipe_in_place_of_the_tensors_is_not_waited_for(saved):
    (saved / "style.safetensors").unlink()
    os.mkfifo(saved / "style.safetensors")
    with pytest.raises(InputError, match=r"style\.safetensors: it is a pipe or a device"):
        load_dsp(saved)


@pytest.mark.parametrize("layout", ["normalised", "torchvision"])
def test_weights_of_vgg_in_both_layouts(layout, tmp_path):
    torch.manual_seed(0)
    whole = VGG19()
    own = whole.state_dict()
    places = {1: [2, 5, 9, 12, 16, 19, 22, 25, 29], 0: [0, 2, 5, 7, 10, 12, 14, 16, 19]}
    if layout == "torchvision":
        given = {
            f"features.{there}.{part}": own[f"{here}.{part}"]
            for here, there in zip(places[1], places[0], strict=True)
            for part in ("weight", "bias")
        }
        given |= {"features.21.weight": torch.rand(512, 512, 3, 3), "features.21.bias": torch.rand(512)}
    else:
        given = own | {"32.weight": torch.rand(512, 512, 3, 3), "32.bias": torch.rand(512)}  # what lies behind relu4_1
    torch.save(given, tmp_path / "vgg.pth")
    loaded = load_vgg(tmp_path / "vgg.pth")
    assert all(torch.equal(loaded.state_dict()[f"{place}.weight"], own[f"{place}.weight"]) for place in places[1])
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    if layout == "torchvision":
        images = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(loaded[0](images), create("tiny", "camvid11").normalise(images))
    del given[next(iter(given))]
    torch.save(given, tmp_path / "torn.pth")
    with pytest.raises(InputError, match="these are not the weights of this VGG19"):
        load_vgg(tmp_path / "torn.pth")
