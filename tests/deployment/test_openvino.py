"""OpenVINO runs the exported file as onnxruntime does: in float32, with the network's classes."""

import importlib.util
import sys

import pytest
import torch

from hardy.deployment import openvino_session
from hardy.deployment.export import ProofError, export
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.timing.bench import bench

here = importlib.util.find_spec("openvino") is not None
SIZE = (32, 48)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create("tiny", "camvid11", width=8).eval()


@pytest.mark.skipif(not here, reason="needs openvino: pip install 'hardy[openvino]'")
@pytest.mark.costly
def test_the_proof_and_the_bench_run_in_openvino(network, tmp_path):
    proof = export(network, tmp_path / "net.onnx", size=SIZE, openvino=True)
    assert proof.agreement_openvino >= 0.9999
    images = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        expected = network(images).argmax(1)
    found = openvino_session.OpenVINO(tmp_path / "net.onnx", threads=1)(images)
    assert (found == expected).double().mean() >= 0.999
    (row,) = bench(network, size=SIZE, runtime=["openvino"], runs=2, warm_up=1)
    assert (row.runtime, row.memory) == ("openvino", None)
    assert 0 < row.least <= row.p95


@pytest.mark.costly
def test_a_file_that_disagrees_in_openvino_is_not_kept(network, tmp_path, monkeypatch):
    class Wrong:
        """A runtime that gives zeros."""

        def __init__(self, path):
            self.logits = path.stem == "logits"

        def __call__(self, images):
            sides = images.shape[-2:]
            return torch.zeros(1, 11, *sides) if self.logits else torch.zeros(1, *sides, dtype=torch.uint8)

    monkeypatch.setattr("hardy.deployment.export.check_installed", lambda: None)
    monkeypatch.setattr("hardy.deployment.export.OpenVINO", Wrong)
    with pytest.raises(ProofError, match="in OpenVINO the file and the network agree on"):
        export(network, tmp_path / "net.onnx", size=SIZE, openvino=True)
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_extra_is_named(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"openvino is not installed; .* pip install 'hardy\[openvino\]'"):
        bench(network, size=SIZE, runtime=["openvino"])
    with pytest.raises(InputError, match="openvino is not installed"):
        export(network, tmp_path / "net.onnx", size=SIZE, openvino=True)


def test_openvino_is_imported_without_its_telemetry(tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text(
        "try:\n    import openvino_telemetry\n    telemetry = True\nexcept ImportError:\n    telemetry = False\n"
    )
    (tmp_path / "openvino_telemetry.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    openvino_session.check_installed()
    assert sys.modules["openvino"].telemetry is False
    assert "openvino_telemetry" not in sys.modules
    monkeypatch.delitem(sys.modules, "openvino")
