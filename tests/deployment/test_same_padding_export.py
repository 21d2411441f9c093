import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import hardy
from hardy.deployment.graph import Session
from hardy.networks.parts.same_padding import SameConv

LITE0 = {"encoder": "tf_efficientnet_lite0", "encoder_weights": "efficientnet_lite0"}


@pytest.mark.costly
@pytest.mark.parametrize("size", [pytest.param((64, 96), marks=pytest.mark.exhaustive), (65, 97)])
def test_lite0_with_imagenet_weights_is_proven_at_even_and_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    network = hardy.create("encoder_decoder", "camvid11", decoder="linear", **LITE0)
    proof = hardy.export(network, tmp_path / "net.onnx", size=size, output="logits")
    assert proof.agreement == 1
    assert proof.difference < 1e-4
    said = json.loads({p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}["hardy"])
    assert said["pretrained"] == network.architecture["pretrained"]
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        wanted = network.eval()(images)
    found = Session(tmp_path / "net.onnx")(images)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.costly
def test_same_padding_stays_open_in_a_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [SameConv(3, 8, 3, 2), nn.ReLU6(), SameConv(8, 8, 5, 2), nn.ReLU6(), SameConv(8, 11, 3, 2)]
    network = hardy.wrap(nn.Sequential(*layers), classes="camvid11").eval()
    proof = hardy.export(network, tmp_path / "net.onnx", size=(65, 98), dynamic=True, output="logits")
    assert proof.difference < 1e-5
    session = Session(tmp_path / "net.onnx")
    for size in ((64, 64), (65, 64), (66, 67), (97, 71), (40, 129)):
        images = torch.rand(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(session(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fast_scnn", {}),
        ("ddrnet", {}),
        ("encoder_decoder", {"encoder": "mobilenetv2_035", "decoder": "swiftnet"}),
        ("encoder_decoder", {"encoder": "vit_tiny_patch16_224", "decoder": "upernet", "vit": {"patch": 14}}),
    ],
)
def test_the_sizes_that_layers_see_stay_open_in_a_graph(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    network = hardy.create(name, "camvid11", **options).eval()
    hardy.export(network, tmp_path / "net.onnx", size=(65, 98), dynamic=True, output="logits")
    session = Session(tmp_path / "net.onnx")
    for size in ((64, 64), (97, 131), (112, 84)):
        images = torch.rand(1, 3, *size)
        with torch.no_grad():
            wanted = network(images)
        torch.testing.assert_close(session(images), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
