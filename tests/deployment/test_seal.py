"""The checksum inside an exported file: every changed byte is found, and a file without one still runs."""

import numpy as np
import onnx
import pytest
import torch

from hardy.deployment.export import export
from hardy.deployment.exported_classes import read_exported
from hardy.deployment.seal import KEY, check_seal
from hardy.errors import InputError
from hardy.networks.building.create import create


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    target = tmp_path_factory.mktemp("sealed") / "net.onnx"
    export(create("tiny", "camvid11", width=8).eval(), target, size=(32, 32))
    return target


@pytest.mark.costly
def test_any_changed_byte_is_found(file, tmp_path):
    content = file.read_bytes()
    changed = tmp_path / "changed.onnx"
    start = content.index(KEY.encode())  # a change to the entry's name leaves a file without a checksum
    places = [each for each in range(0, len(content), 97) if not start <= each < start + len(KEY) + 2]
    for place in [*places, len(content) - 1]:
        changed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"changed\.onnx: was changed or damaged after its export"):
            check_seal(changed)


def test_a_file_whose_weights_were_changed_is_refused(file, tmp_path):
    model = onnx.load(file)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    weight.raw_data = np.zeros(len(weight.raw_data), np.uint8).tobytes()
    onnx.save(model, tmp_path / "zero.onnx")
    with pytest.raises(InputError, match=r"zero\.onnx: was changed or damaged after its export"):
        read_exported(tmp_path / "zero.onnx")


def test_a_file_without_a_checksum_runs(file, tmp_path):
    model = onnx.load(file)
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "old.onnx")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(read_exported(tmp_path / "old.onnx")(images), read_exported(file)(images))
