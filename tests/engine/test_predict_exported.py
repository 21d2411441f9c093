"""Exported files predict as the network they came from: with logits, with classes, at a fixed size, with its batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from hardy.deployment.export import export
from hardy.deployment.exported_classes import read_exported
from hardy.engine.predict import predict, predict_all
from hardy.errors import InputError
from hardy.networks.building.create import create


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create("tiny", "camvid11", width=8).eval()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate(((32, 48), (32, 48), (40, 50))):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def ids(path):
    with Image.open(path) as mask:
        return np.array(mask)


@pytest.mark.costly
@pytest.mark.parametrize("output", ["logits", "classes"])
def test_a_file_of_a_fixed_size(network, images, tmp_path, output):
    export(network, tmp_path / "net.onnx", size=(32, 48), output=output)
    file = read_exported(tmp_path / "net.onnx")
    theirs = predict(network, images, tmp_path / "net", size=(32, 48))
    ours = predict(file, images, tmp_path / "onnx", batch=2)
    for one, other in zip(theirs[:2], ours[:2], strict=True):
        assert np.array_equal(ids(one), ids(other))
    assert ids(ours[2]).shape == (40, 50)
    assert (ids(theirs[2]) == ids(ours[2])).mean() > 0.9
    assert predict_all(file, images, tmp_path / "onnx").kept == 3
    if output == "classes":
        with pytest.raises(InputError, match="without their probabilities; export it with --logits"):
            predict(file, images, tmp_path / "sure", draw=["confidence"])
    else:
        predict(file, images, tmp_path / "sure", draw=["confidence"])
        assert (tmp_path / "sure" / "confidence" / "2.png").exists()
    assert len(predict(file, images, tmp_path / "windows", window=(32, 48))) == 3
    with pytest.raises(InputError, match="takes images of 32x48 pixels only; leave the size out"):
        predict(file, images, tmp_path / "x", size=(64, 64))


@pytest.mark.costly
def test_a_file_of_open_sizes_and_one_that_is_damaged(network, images, tmp_path):
    export(network, tmp_path / "net.onnx", size=(32, 48), output="logits", dynamic=True)
    theirs = predict(network, images, tmp_path / "net")
    ours = predict(read_exported(tmp_path / "net.onnx"), images, tmp_path / "onnx", batch=2)
    assert all(np.array_equal(ids(one), ids(other)) for one, other in zip(theirs, ours, strict=True))
    adapted = predict(read_exported(tmp_path / "net.onnx"), images, tmp_path / "adapted", adapt="source")
    assert all(np.array_equal(ids(one), ids(other)) for one, other in zip(theirs, adapted, strict=True))
    for output in ("logits", "classes"):
        export(network, tmp_path / "small.onnx", size=(32, 48), output=output, dynamic=True)
        with pytest.raises(InputError, match="takes images of at least 16x16 pixels, not 8x24"):
            read_exported(tmp_path / "small.onnx")(torch.rand(1, 3, 8, 24))
    whole = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "net.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="onnxruntime cannot read it"):
        read_exported(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="no such file"):
        read_exported(tmp_path / "gone.onnx")
