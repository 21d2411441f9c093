import logging
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from hardy.errors import InputError
from hardy.networks.building.create import create, rebuild
from hardy.networks.building.weights import fill, initialise, read_weights
from hardy.networks.parts import pyramid
from hardy.networks.parts.torchvision_names import in_timm_names

ENCODER = "mobilenetv2_035"


@pytest.fixture
def weights(real_data: Path) -> Path:
    file = real_data / "weights" / ENCODER / "mobilenetv2_0.35_torchvision_names.pth"
    if not file.exists():
        pytest.skip(f"no weights at {file}")
    return file


def test_real_weights_under_torchvisions_names_mean_the_same_in_timm(weights: Path) -> None:
    network = create("classifier", "pacs7", encoder=ENCODER, encoder_weights=str(weights)).eval()
    reference = torchvision.models.mobilenet_v2(width_mult=0.35).eval()
    found = reference.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    assert set(found.missing_keys) <= {"classifier.1.weight", "classifier.1.bias"} | {
        name for name in reference.state_dict() if name.endswith("num_batches_tracked")
    }
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        theirs = reference.features(network.normalise(images)).mean(dim=(2, 3))
        torch.testing.assert_close(network.outputs(images).embedding, theirs, rtol=1e-3, atol=1e-4)
    assert theirs.std() > 0.1


def test_real_weights_fill_the_encoder_of_a_segmentation_network(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hardy"):
        network = create("encoder_decoder", "camvid11", encoder=ENCODER, encoder_weights=str(weights))
    assert "sha256 375b4546b36d4d0e" in caplog.text
    assert "RANDOM" not in caplog.text
    stem = torch.load(weights, weights_only=True)["features.0.0.weight"]
    assert torch.equal(network.backbone.model.conv_stem.weight, stem)
    assert network.pretrained
    inside = {id(parameter) for module in network.encoder() for parameter in module.parameters()}
    assert inside == {id(parameter) for parameter in network.backbone.parameters()}
    again = rebuild(network.architecture, network.label_space)
    assert again.pretrained
    assert again.architecture == network.architecture
    assert len(again.encoder()) == 1


def test_torchvisions_names_are_known_for_every_layer() -> None:
    theirs = torchvision.models.mobilenet_v2().state_dict()
    ours = timm.create_model("mobilenetv2_100").state_dict()
    renamed = in_timm_names(theirs)
    assert {name: value.shape for name, value in renamed.items()} == {name: value.shape for name, value in ours.items()}
    assert in_timm_names({"conv1.weight": torch.zeros(1)}).keys() == {"conv1.weight"}


@pytest.mark.costly
def test_resnet_of_torchvision_fills_swiftnet(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18()
    torch.save(reference.state_dict(), tmp_path / "r18.pth")
    network = create("swiftnet", "camvid11", weights=None, encoder_weights=str(tmp_path / "r18.pth"))
    assert torch.equal(network.backbone.layer4[2].conv2.weight, reference.layer4[1].conv2.weight)
    assert network.pretrained
    assert len(network.encoder()) == 1


@pytest.mark.costly
def test_timms_weights_are_asked_for_by_their_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    make = timm.create_model

    def without_net(name: str, *, pretrained: bool, **kwargs: object) -> nn.Module:
        asked.append((name, pretrained))
        return make(name, pretrained=False, **kwargs)

    monkeypatch.setattr(pyramid.timm, "create_model", without_net)
    create("swiftnet", "camvid11", weights="timm")
    create("classifier", "camvid11", encoder="resnet18.a2_in1k", encoder_weights="timm")
    network = create("encoder_decoder", "camvid11", encoder="resnet18.a2_in1k", encoder_weights="a1_in1k")
    assert asked == [("resnet18", True), ("resnet18.a2_in1k", True), ("resnet18.a1_in1k", True)]
    assert network.architecture["options"]["encoder_weights"] == "a1_in1k"


def test_being_offline_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> nn.Module:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(pyramid.timm, "create_model", offline)
    with pytest.raises(InputError, match="could not be downloaded; give a weights file") as caught:
        create("swiftnet", "camvid11", weights="timm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_whole_network_is_filled_from_a_file(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    source = create("tiny", "camvid11")
    file = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": OrderedDict((f"module.{k}", v) for k, v in source.state_dict().items())}, file)
    else:
        save_file(source.state_dict(), file)
    with caplog.at_level(logging.INFO, "hardy"):
        network = create("tiny", "camvid11", weights=file)
    assert "sha256" in caplog.text
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())
    other = create("tiny", "cityscapes19", weights=file).state_dict()
    assert other["head.weight"].shape == (19, 32, 1, 1), "other classes get a last layer of their own"
    assert all(torch.equal(value, other[name]) for name, value in source.state_dict().items() if "head" not in name)
    with pytest.raises(InputError, match=r"of another shape \(detail.0.0.weight \(32, 3, 3, 3\) for \(16, 3"):
        create("tiny", "camvid11", weights=file, width=16)
    with pytest.raises(InputError, match=r"missing .* left over"):
        create("fast_scnn", "camvid11", weights=file)


def test_filling_is_all_or_nothing() -> None:
    layer = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(InputError, match="1 missing"):
        fill(layer, {"weight": torch.zeros(2, 2)}, "somewhere")
    with pytest.raises(InputError, match=r"1 left over \(head.weight\)"):
        fill(layer, {**before, "head.weight": torch.zeros(1)}, "somewhere")
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    fill(layer, {**before, "head.weight": torch.zeros(1)}, "somewhere", may_be_left={"head.weight"}.intersection)


def test_refuses_files_that_hold_no_weights(tmp_path: Path) -> None:
    files = {
        "pickle.pth": pickle.dumps({"a": print}, protocol=2),
        "torn.pth": b"PK\x03\x04 not a zip",
        "empty.pth": b"",
        "torn.safetensors": b"\x00\x00",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    with pytest.raises(InputError, match="other than named tensors"):
        read_weights(tmp_path / "number.pth")
    with pytest.raises(InputError, match="no such weights file"):
        read_weights(tmp_path / "nowhere.pth")


def test_the_draw_keeps_the_variance_that_its_rule_says() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(64, 128, 3, bias=False),
        nn.Conv2d(4096, 4096, 3, groups=4096, bias=False),
        nn.Conv2d(256, 64, 3),
        nn.Linear(400, 300),
    )
    initialise(layers)
    expected = [(2 / (128 * 9)) ** 0.5, (2 / 9) ** 0.5, (1 / (256 * 9)) ** 0.5, (1 / 400) ** 0.5]
    for layer, std in zip(layers, expected, strict=True):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
        assert layer.bias is None or (layer.bias == 0).all()


def test_weights_may_lie_in_the_folder_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDY_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "weights" / "some.safetensors")
    assert read_weights("weights/some.safetensors")["a"].tolist() == [1, 1]
    with pytest.raises(InputError, match=r"^weights/other\.pth: no such weights file"):
        read_weights("weights/other.pth")
