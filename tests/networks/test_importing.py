"""Importing published weights: what is recognised and refused, what is kept of the file, and that the result lasts."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from published_more_names import ddrnet, pidnet
from published_names import espnet, fast_scnn, values
from safetensors.torch import save_file
from torch import Tensor

import hardy
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.networks.building.create import create, rebuild
from hardy.networks.building.importing import imported
from hardy.registry import PUBLICATIONS


def space(count: int) -> LabelSpace:
    return LabelSpace("some", tuple(f"c{i}" for i in range(count)), tuple((i, 0, 0) for i in range(count)))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The smallest ESPNet as published, of 12 classes with void."""
    return values(espnet(12, 1, 1))


def refusal(weights: dict[str, Tensor], tmp_path: Path, classes: str | LabelSpace = "camvid11", **options: str) -> str:
    """The one line that the import of a file with ``weights`` is refused with, after the file's name."""
    file = tmp_path / "some.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    with pytest.raises(InputError) as refused:
        hardy.import_weights(file, classes, **options)
    line = str(refused.value)
    assert line.startswith(f"{file}: ")
    assert "\n" not in line
    assert line.count(str(file)) == 1
    return line.removeprefix(f"{file}: ")


def test_the_account_of_a_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "a.pth")
    found = imported(tmp_path / "a.pth", "camvid11")
    assert (found.publication, found.repository, found.checked) == ("espnet", "sacmehta/ESPNet", "files")
    assert (found.used, dict(found.dropped)) == (len(weights), {"class 11": "void, which is no class"})
    assert found.channels == "BGR"
    assert not found.network.training
    options = found.network.architecture["options"]
    assert options == {"p": 1, "q": 1, "decoder": True, "width": 12, "finest": "convolution"}
    assert found.network.decoder.up3.weight.shape == (12, 11, 2, 2)
    with_void = imported(tmp_path / "a.pth", space(12))
    assert dict(with_void.dropped) == {}
    assert torch.equal(with_void.network.decoder.up3.weight[:, :11], found.network.decoder.up3.weight)


def test_the_normalisation_lasts(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "some.safetensors")
    network = hardy.import_weights(tmp_path / "some.safetensors", "camvid11", source="espnet", network="espnet")
    images = torch.rand(1, 3, 64, 64)
    hardy.save(network, tmp_path / "run")
    again = hardy.load(tmp_path / "run")
    assert network.mean.flatten().tolist() == pytest.approx([105.033194 / 255, 108.408863 / 255, 110.331026 / 255])
    assert torch.equal(again.mean, network.mean)
    assert torch.equal(again.std, network.std)
    assert torch.equal(again(images), network(images))
    assert torch.equal(rebuild(network.architecture, network.label_space).std, network.std)
    hardy.save(again, tmp_path / "again")
    assert (tmp_path / "again" / "network.json").read_text() == (tmp_path / "run" / "network.json").read_text()


def test_another_normalisation_for_any_network(tmp_path: Path) -> None:
    network = create("tiny", "camvid11").eval()
    assert set(network.architecture) == {"name", "options"}
    images = torch.rand(1, 3, 32, 32)
    network.renormalise((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    expected = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    assert torch.equal(network.normalise(images), expected)
    assert torch.equal(hardy.load(hardy.save(network, tmp_path / "run"))(images), network(images))
    with pytest.raises(InputError, match=r"std \(0.5, 0.0, 2.0\) is not above 0"):
        network.renormalise((0.1, 0.2, 0.3), (0.5, 0.0, 2.0))
    with pytest.raises(InputError, match=r"mean \[0.1\] is not one number for each of R, G and B"):
        network.renormalise([0.1], (0.5, 1.0, 2.0))


def test_files_of_no_publication(weights: dict[str, Tensor], tmp_path: Path) -> None:
    line = refusal({"a.weight": torch.zeros(1), "b.weight": torch.zeros(1)}, tmp_path)
    assert line.startswith("its names (a.weight, b.weight, ...) match no known publication; known are: bisenetv2 (Coin")
    assert all(name in line for name in PUBLICATIONS)
    line = refusal(weights, tmp_path, network="pidnet")
    assert line == "holds weights of espnet, as espnet (sacmehta/ESPNet), not of pidnet"
    line = refusal(weights, tmp_path, source="ddrnet")
    assert line == "is not of ddrnet (ydhongHIT/DDRNet): it lacks down3.0.weight"
    with pytest.raises(InputError, match="there is no publication 'espnett'; did you mean 'espnet'"):
        hardy.import_weights(tmp_path / "some.safetensors", "camvid11", source="espnett")


def test_names_missing_and_left_over(weights: dict[str, Tensor], tmp_path: Path) -> None:
    line = refusal(weights | {"extra.weight": torch.zeros(1), "extra.bias": torch.zeros(1)}, tmp_path)
    assert line == "2 left over that espnet does not have (extra.bias, extra.weight)"
    less = {name: value for name, value in weights.items() if name != "encoder.level2.0.d4.conv.weight"}
    line = refusal(less, tmp_path)
    assert line == "these are not the weights of this ESPNet: 1 missing (level2.blocks.0.branches.2.weight)"
    less = {name: value for name, value in weights.items() if name != "conv.conv.weight"}
    assert refusal(less, tmp_path) == "lacks conv.conv.weight, which sacmehta/ESPNet's files have"
    other = weights | {"br.weight": torch.zeros(13)}
    assert "1 of another shape (decoder.norm.weight (13,) for (12,))" in refusal(other, tmp_path)
    twice = weights | {"level1.conv.weight": weights["encoder.level1.conv.weight"].clone()}
    assert refusal(twice, tmp_path).startswith("some names occur twice, with and without the prefix")


def test_another_number_of_classes(weights: dict[str, Tensor], tmp_path: Path) -> None:
    line = refusal(weights, tmp_path, "cityscapes19")
    assert line == "predicts 12 classes, or 11 without void, the last; label space 'cityscapes19' has 19"
    line = refusal(values(fast_scnn(7)), tmp_path)
    assert line == "predicts 7 classes; label space 'camvid11' has 11"


def test_what_training_adds_to_names_is_dropped(tmp_path: Path) -> None:
    model = {f"model.{name}": torch.zeros(shape) for name, shape in ddrnet(classes=5).items()}
    save_file(model | {"loss.criterion.weight": torch.ones(5)}, tmp_path / "some.safetensors")
    found = imported(tmp_path / "some.safetensors", space(5))
    assert found.publication == "ddrnet"
    assert dict(found.dropped) == {"loss.criterion.weight": "a weight of the training loss"}
    assert found.used == len(model)


def test_sizes_that_hardy_does_not_have(tmp_path: Path) -> None:
    names = pidnet(classes=11) | {"final_layer.conv1.weight": (77, 128, 3, 3)}
    line = refusal({name: torch.zeros(shape) for name, shape in names.items()}, tmp_path)
    assert line == "a PIDNet with 32 channels and a head of 77; Hardy has S, M and L"


MINE = '''"""Tiny as somebody else has it.

Source: written by a test; github.com/me/mine.
"""
from hardy.networks.published.base import Colours, Publication

class Mine(Publication):
    network = "tiny"
    repository = "me/mine"
    signs = (r"theirs\\.detail\\.0\\.0\\.weight", r"theirs\\.head\\.weight")
    layers = {r"theirs\\.(.+)": r"\\1"}

    def class_count(self, weights):
        return len(weights["theirs.head.weight"])

    def options(self, weights):
        return {"width": len(weights["theirs.detail.0.0.weight"])}

    def colours(self, weights):
        return Colours((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
'''


def test_a_new_publication_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new_mine.py").write_text(MINE.replace("\\\\", "\\"))
    package = importlib.import_module(PUBLICATIONS.package)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    theirs = create("tiny", "camvid11", width=8).eval()
    save_file({f"theirs.{name}": value for name, value in theirs.state_dict().items()}, tmp_path / "some.safetensors")
    found = imported(tmp_path / "some.safetensors", "camvid11")
    sys.modules.pop(f"{PUBLICATIONS.package}.new_mine")
    assert found.publication == "new_mine"
    theirs.renormalise((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    images = torch.rand(1, 3, 32, 48)
    assert torch.equal(found.network(images), theirs(images))
