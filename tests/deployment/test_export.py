"""Exported files say what the network says, and a file that does not is never kept."""

import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from hardy.deployment.export import ProofError, export
from hardy.deployment.proof import compare
from hardy.errors import InputError
from hardy.metrics import confusion, scores
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units


def run(path, images):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, {"images": images.numpy()}
    )[0]


def settled(name, **options):
    """A network whose batch norms have seen images, so that its logits are not all alike."""
    torch.manual_seed(0)
    network = create(name, "camvid11", **options)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 64, 64))
    return network


@pytest.fixture(scope="module")
def tiny():
    return settled("tiny", aux=True)


def photos(count, size=(40, 56)):
    return [np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """One export that several tests look at: its network, proof, file, images and labels."""
    folder = tmp_path_factory.mktemp("export")
    images, labels = (
        photos(3),
        [np.random.default_rng(9 + i).integers(0, 11, (40, 56), dtype=np.uint8) for i in range(3)],
    )
    labels[0][:5] = 255
    tiny.train()
    target = folder / "deep" / "net.onnx"
    proof = export(tiny, target, size=(40, 56), batch=2, images=images, labels=labels)
    return copy.deepcopy(tiny).eval(), proof, target, images, np.stack(labels)


@pytest.mark.costly
def test_classes_are_bytes_and_equal_those_of_the_network(exported):
    network, proof, target, _, _ = exported
    images = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        expected = network(images).argmax(1)
    found = run(target, images)
    assert found.dtype == np.uint8
    assert (found == expected.numpy()).mean() >= 0.999
    assert (proof.images, proof.drawn, proof.size, proof.output) == (3, False, (40, 56), "classes")
    assert proof.agreement >= 0.9999
    assert (proof.upsample, proof.agreement_full) == ("full", proof.agreement)
    assert 0 < proof.difference < 1e-4


def test_the_network_stays_as_it_was_and_auxiliary_heads_stay_home(exported, tiny):
    assert tiny.training
    names = [weight.name for weight in onnx.load(exported[2]).graph.initializer]
    assert any(name.startswith("head") for name in names)
    assert not any("aux" in name for name in names)
    assert {path.name for path in exported[2].parent.iterdir()} == {"net.onnx", "net.README.md"}


def test_the_proof_travels_in_the_file(exported):
    network, proof, target, _, _ = exported
    model = onnx.load(target)
    stored = {entry.key: entry.value for entry in model.metadata_props}
    expected = json.loads(json.dumps(proof.to_json()))
    assert expected.pop("path") == str(target)
    assert json.loads(stored["hardy"]) == expected
    assert json.loads(stored["hardy"])["labels"]["classes"] == list(network.label_space.classes)
    assert model.producer_name == "hardy"
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert proof.nodes == len(model.graph.node)


def test_miou_of_both_equals_the_metric_on_the_same_masks(exported):
    network, proof, _, images, labels = exported
    stacked = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images])
    with torch.no_grad():
        guess = network(stacked).argmax(1)
    expected = scores(confusion(guess, torch.from_numpy(labels).long(), 11)).miou
    assert proof.miou_torch == pytest.approx(expected, abs=1e-4)
    assert proof.miou_onnx == pytest.approx(proof.miou_torch, abs=1e-3)


@pytest.mark.costly
def test_logits_on_request_and_nothing_on_the_terminal(tiny, tmp_path, capfd):
    proof = export(tiny, tmp_path / "net.onnx", size=(32, 48), output="logits")
    assert capfd.readouterr() == ("", "")
    images = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        expected = copy.deepcopy(tiny).eval()(images)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", images), expected.numpy(), atol=1e-4)
    assert proof.drawn


@pytest.mark.costly
def test_a_wrapped_image_level_module_exports(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 7, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = wrap(module, "pacs7", image_level=True)
    labels = [np.int64(1), np.int64(6)]
    proof = export(network, tmp_path / "net.onnx", size=(32, 32), images=photos(2), labels=labels, agreement=1.0)
    assert run(tmp_path / "net.onnx", torch.rand(1, 3, 32, 32)).shape == (1,)
    assert proof.miou_torch == proof.miou_onnx


@pytest.mark.costly
def test_a_pruned_network_exports_smaller_and_equal(exported, tmp_path):
    small = copy.deepcopy(exported[0])
    units = find_units(small)
    remove(small, units, {unit.name: range(0, unit.size, 2) for unit in units})
    proof = export(small, tmp_path / "small.onnx", size=(40, 56), images=photos(1))
    assert proof.agreement >= 0.9999
    weights = [
        sum(int(np.prod(weight.dims)) for weight in onnx.load(path).graph.initializer)
        for path in (tmp_path / "small.onnx", exported[2])
    ]
    assert weights[0] < weights[1] / 2


class _Other(nn.Module):
    """Says something else when it is exported than when it runs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 11, 1)

    def forward(self, x):
        return self.conv(x) * (-1.0 if torch.compiler.is_compiling() else 1.0)


@pytest.mark.costly
def test_a_file_that_disagrees_is_not_kept(tmp_path):
    target = tmp_path / "net.onnx"
    with pytest.raises(ProofError, match=r"net\.onnx: the file and the network agree on .*no file was") as caught:
        export(wrap(_Other(), "camvid11"), target, size=(32, 32))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    target.write_bytes(b"an earlier file")
    with pytest.raises(ProofError):
        export(wrap(_Other(), "camvid11"), target, size=(32, 32))
    assert target.read_bytes() == b"an earlier file"


@pytest.mark.costly
def test_logits_that_are_no_numbers_fail(tmp_path):
    layers = nn.Sequential(nn.Conv2d(3, 11, 1), nn.Conv2d(11, 11, 1, groups=11))
    network = wrap(layers, "camvid11")
    with torch.no_grad():  # finite weights and a logit that overflows: the classes agree, the logits cannot be compared
        layers[0].bias[3] = 3e38
        layers[1].weight[3] = 10
    with pytest.raises(ProofError, match="nan"):
        export(network, tmp_path / "net.onnx", size=(32, 32))
    assert list(tmp_path.iterdir()) == []


class _Stubborn(nn.Module):
    """Its middle layer cannot be traced."""

    class Middle(nn.Module):
        def forward(self, x):
            return x * float(x.sum())

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 11, 1)
        self.middle = self.Middle()

    def forward(self, x):
        return self.middle(self.first(x))


def test_a_refusal_names_the_module_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"module 'module\.middle' cannot be exported") as caught:
        export(wrap(_Stubborn(), "camvid11"), tmp_path / "net.onnx", size=(32, 32))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_one_size_cannot_be_dynamic(tmp_path):
    class OneSize(nn.Module):
        def forward(self, x):
            return x.reshape(-1, 3, 48, 32).repeat(1, 4, 1, 1)[:, :11]

    with pytest.raises(InputError, match="dynamic size"):
        export(wrap(OneSize(), "camvid11"), tmp_path / "net.onnx", size=(48, 32), dynamic=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (8, 64)}, "size"),
        ({"size": (64,)}, "size"),
        ({"size": (32, 32), "batch": 0}, "batch 0"),
        ({"size": (32, 32), "images": []}, "images is empty"),
        ({"size": (32, 32), "labels": [np.zeros((4, 4))]}, "1 labels for 0 images"),
        ({"size": (32, 32), "images": [np.zeros((4, 4), np.uint8)]}, r"\(H, W, 3\) uint8"),
        ({"size": (32, 32), "images": [torch.zeros(3, 4, 4, dtype=torch.uint8)]}, r"\(3, H, W\) float"),
    ],
)
def test_bad_arguments_are_refused(tiny, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export(tiny, tmp_path / "net.onnx", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_no_onnx_file_or_cannot_be_written_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        export(tiny, tmp_path / "net.pt", size=(32, 32))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        export(tiny, tmp_path / "file" / "net.onnx", size=(32, 32))


def test_a_missing_package_names_the_extra(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(InputError, match=r"onnx is not installed; .*hardy\[export\]"):
        export(tiny, tmp_path / "net.onnx", size=(32, 32))


def test_agreement_counts_pixels_by_hand(tiny):
    network = wrap(nn.Conv2d(3, 11, 1), "camvid11").eval()
    images = [torch.rand(3, 4, 5) for _ in range(3)]

    def wrong(batch):
        classes = network(batch).argmax(1)
        classes[:, 0, 0] = (classes[:, 0, 0] + 1) % 11
        return classes

    def shifted(batch):
        return network(batch) + 0.25

    with torch.no_grad():
        found = compare(
            network,
            {"classes": wrong, "logits": shifted},
            size=(4, 5),
            dynamic=False,
            batch=2,
            images=images,
            labels=None,
        )
    # Three images of 20 pixels, one pixel wrong in each; the image that fills up the last batch does not count.
    assert found.agreement == 57 / 60
    assert found.difference == pytest.approx(0.25, abs=1e-5)
