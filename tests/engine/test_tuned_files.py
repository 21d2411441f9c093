"""The files of a tuned network: what was trained, and the export with the tuner merged, which is like any other."""

import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import hardy
from hardy.commands import export, train
from hardy.engine import changes
from hardy.recipe import Recipe, from_values
from hardy.trust import allowing

NETWORK = "two_part_network:TwoPart"
TRUST = ["two_part_network"]
IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def logits(network):
    with torch.no_grad():
        return network.eval()(IMAGES)


def recipe(town: Path, folder: Path, **sections) -> Recipe:
    values = {
        "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 48]},
        "optim": {"steps": 4, "batch": 4, "lr": 0.1},
        "run": {"workers": 0, "device": "cpu", "folder": str(folder)},
    }
    return from_values({**values, **sections})


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["adaptformer", "bitfit", "lora", "norms", "soma", "ssf"])
def test_a_tuner_stores_what_it_trains_and_its_file_is_that_of_the_merged_network(
    tuner: str, town: Path, tmp_path: Path
) -> None:
    with allowing(TRUST):
        train.run(
            recipe(town, tmp_path / "dense", network={"name": NETWORK, "classes": str(town / "classes.yaml")}),
            show=False,
        )
        chosen = recipe(town, tmp_path / "tuned", network={"run": str(tmp_path / "dense")}, tuner=tuner)
        expected = logits(hardy.load(train.run(chosen, show=False), trust=TRUST))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("dense", "tuned"):
        shutil.move(tmp_path / name, moved / name)
    network = hardy.load(moved / "tuned", trust=TRUST)
    assert torch.equal(logits(network), expected)
    held = set(load_file(moved / "tuned" / "network.safetensors"))
    assert held == set(network.state_dict()) - changes.untrained(network) < set(network.state_dict())
    size = {"size": (32, 48), "dynamic": False, "logits": True, "images": None, "root": None}
    merge = tuner != "adaptformer"
    with allowing(TRUST):
        exported = export.run(moved / "tuned", tmp_path / "tuned.onnx", (), merge=merge, **size)
        plain = export.run(moved / "dense", tmp_path / "dense.onnx", (), merge=False, **size)
    assert (exported.nodes == plain.nodes) == merge
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    answer = session.run(None, {"images": IMAGES[:1].numpy()})[0]
    assert abs(answer - expected[:1].numpy()).max() <= 1e-4 * float(expected.abs().max())
