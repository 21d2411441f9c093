"""Int8 files: near the network, refused where a domain loses too much; the README's lines run as they stand."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from hardy.deployment import quantisation
from hardy.deployment.export import export
from hardy.deployment.proof import ProofError
from hardy.deployment.quantisation import Drop, quantise
from hardy.errors import InputError
from hardy.metrics import confusion, scores
from hardy.networks.building.create import create

SIZE = (32, 48)


@pytest.fixture(scope="module")
def network():
    """A network whose batch norms have seen images."""
    torch.manual_seed(0)
    made = create("tiny", "camvid11", width=8)
    with torch.no_grad():
        for _ in range(3):
            made(torch.rand(4, 3, *SIZE))
    return made.eval()


@pytest.fixture(scope="module")
def pictures(network):
    """Two domains of images with masks: the network's own classes, a fifth of them changed at random."""
    draw = torch.Generator().manual_seed(1)
    found = {}
    for name, light in (("day", 1.0), ("night", 0.3)):
        images = [light * torch.rand(3, *SIZE, generator=draw) for _ in range(4)]
        with torch.no_grad():
            classes = [network(image[None])[0].argmax(0) for image in images]
        noise = [torch.rand(SIZE, generator=draw) < 0.2 for _ in images]
        found[name] = [
            (image, torch.where(hit, 0, mask)) for image, mask, hit in zip(images, classes, noise, strict=True)
        ]
    return found


@pytest.fixture(scope="module")
def made(network, pictures, tmp_path_factory):
    target = tmp_path_factory.mktemp("int8") / "net.onnx"
    ranges = {name: [image for image, _ in pairs[:2]] for name, pairs in pictures.items()}
    judged = {name: pairs[2:] for name, pairs in pictures.items()}
    return quantise(network, target, size=SIZE, calibration=ranges, measured=judged, limit=50), target, judged


@pytest.mark.costly
def test_the_file_is_int8_and_the_drop_is_that_of_its_classes(made, network):
    result, target, judged = made
    graph = onnx.load(target).graph
    eights = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims[1:]]
    assert len(eights) == result.layers >= 5
    assert max(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() for tensor in eights) <= 64
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    for drop in result.drops:
        images = torch.stack([image for image, _ in judged[drop.domain]])
        masks = torch.stack([mask for _, mask in judged[drop.domain]])
        found = torch.from_numpy(
            np.concatenate([session.run(None, {"images": image[None].numpy()})[0] for image in images])
        ).long()
        with torch.no_grad():
            expected = network(images).argmax(1)
        assert drop.after == pytest.approx(scores(confusion(found, masks, 11)).miou)
        assert drop.before == pytest.approx(scores(confusion(expected, masks, 11)).miou)
        assert drop.agreement == pytest.approx((found == expected).double().mean().item())
        assert 0.8 < drop.agreement < 1
    assert dict(result.calibrated) == {"day": 2, "night": 2}
    (entry,) = [entry for entry in onnx.load(target).metadata_props if entry.key == "hardy"]
    assert json.loads(entry.value)["quantised"]["calibrated"] == {"day": 2, "night": 2}


def test_a_domain_that_loses_too_much_is_named_and_nothing_is_written(network, pictures, tmp_path, monkeypatch):
    drops = {"day": Drop("day", 4, 0.5, 0.49, 1.0), "night": Drop("night", 4, 0.5, 0.465, 0.9)}
    monkeypatch.setattr(quantisation, "_drop", lambda name, *rest: drops[name])
    monkeypatch.setattr(quantisation, "_int8", lambda *rest: None)
    for name in ("write", "with_classes", "Session"):
        monkeypatch.setattr(quantisation.graph, name, lambda *rest, **options: None)
    target = tmp_path / "net.onnx"
    ranges = {"day": [pictures["day"][0][0]]}
    with pytest.raises(
        ProofError, match=r"loses 3\.5 points of mIoU in night, more than the limit 2 .*day 1\.0, night 3\.5"
    ):
        quantise(network, target, size=SIZE, calibration=ranges, measured=pictures)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_calibrated_is_refused(network, pictures, tmp_path):
    with pytest.raises(InputError, match="calibration: needs at least one domain with images"):
        quantise(network, tmp_path / "net.onnx", size=SIZE, calibration={"day": []}, measured=pictures)
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        quantise(network, tmp_path / "net.bin", size=SIZE, calibration={}, measured=pictures)


def python_of(readme):
    text = readme.read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (cpp,) = re.findall(r"```cpp\n(.*?)```", text, re.DOTALL)
    assert len(lines.splitlines()) == len(cpp.splitlines()) == 5
    return lines


@pytest.mark.costly
def test_the_five_lines_of_the_readme_give_what_the_network_gives(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    export(network, "net.onnx", size=SIZE, output="logits", batch=2)
    scope = {}
    exec(python_of(tmp_path / "net.README.md").replace("photo.jpg", "photo.png"), scope)  # a JPEG would lose bits
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    assert scope["logits"].shape == (2, 11, *SIZE)
    assert np.abs(scope["logits"][1] - expected[0].numpy()).max() < 1e-4


@pytest.mark.costly
def test_the_lines_of_an_int8_file_run_too(made, monkeypatch):
    _, target, _ = made
    monkeypatch.chdir(target.parent)
    Image.new("RGB", (60, 40), (90, 80, 70)).save("photo.jpg")
    scope = {}
    exec(python_of(target.parent / "net.README.md"), scope)
    assert scope["classes"].shape == (1, *SIZE)
    assert "points of mIoU lost against the network: day" in (target.parent / "net.README.md").read_text()
