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
from hardy.engine.fit import Fit
from hardy.engine.stop import Stopped
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


@pytest.mark.costly
@pytest.mark.slow
def test_wise_ft_ends_in_the_average_of_the_source_and_the_training_of_everything(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it was stopped, and in Python; the moving average is averaged, where there is one."""
    real = Fit._step

    def step(self, batch):
        if self.progress.step == 2:
            raise Stopped(2, 2)
        real(self, batch)

    def chosen(folder: str, tuner: dict) -> Recipe:
        start = {"run": str(tmp_path / "dense")}
        optim = {"steps": 4, "batch": 4, "lr": 0.1, "ema": 0.5}
        return recipe(town, tmp_path / folder, network=start, tuner=tuner, optim=optim)

    wise = {"name": "wise_ft", "alpha": 0.25, "decoder": True}
    with allowing(TRUST):
        named = {"name": NETWORK, "classes": str(town / "classes.yaml")}
        start, full, whole = (
            hardy.load(train.run(given, show=False), trust=TRUST)
            for given in (
                recipe(town, tmp_path / "dense", network=named),
                chosen("full", {"name": "full"}),
                chosen("whole", wise),
            )
        )
        with monkeypatch.context() as patch:
            patch.setattr(Fit, "_step", step)
            with pytest.raises(Stopped):
                train.run(chosen("parts", wise), show=False)
        parts = train.run(chosen("parts", wise), show=False)
    assert (parts / "network.safetensors").read_bytes() == (tmp_path / "whole" / "network.safetensors").read_bytes()
    ends = full.state_dict()
    for name, value in whole.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, torch.lerp(start.state_dict()[name], ends[name], 0.25)), name
    given = hardy.load(tmp_path / "dense", trust=TRUST)
    data = {"sources": ["folder/day"], "root": str(town), "crop": [32, 48]}
    optim = {"batch": 4, "lr": 0.1, "ema": 0.5}
    hardy.train(given, data=data, tuner=wise, steps=4, optim=optim, run={"workers": 0, "device": "cpu"})
    for name, value in given.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, whole.state_dict()[name]), name
