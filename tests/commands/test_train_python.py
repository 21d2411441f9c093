"""`hardy.train`: a network in memory, ours or the user's, trained in place."""

import pytest
import torch
from torch import nn

import hardy
from hardy import recipe
from hardy.commands import train
from hardy.data.label_spaces import read_classes
from hardy.engine import artefact
from hardy.engine.stop import Stopped
from hardy.errors import InputError
from hardy.networks.tiny import Tiny
from hardy.records import read as records_of

KEPT = {"start", "curves.jsonl", "network.json", "network.safetensors", "recipe.yaml", "records.jsonl", "train.log"}


def test_ours_is_trained_in_place_and_nothing_is_kept(town, of_python, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = hardy.create("tiny", str(town), width=8)
    before = network.head.weight.detach().clone()
    assert hardy.train(network, steps=3, **of_python) is network
    assert not network.training
    assert not torch.equal(network.head.weight, before)
    assert list(tmp_path.iterdir()) == []


def test_a_module_of_the_users_is_trained_kept_and_recorded(town, of_python, tmp_path):
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    network = hardy.wrap(layers, read_classes(town / "classes.yaml").space)
    before = layers[0].weight.detach().clone()
    hardy.train(network, steps=4, folder=tmp_path / "run", **of_python)
    assert not torch.equal(layers[0].weight, before), "the module itself, not a copy"
    assert {path.name for path in (tmp_path / "run").iterdir()} == KEPT
    fresh = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    back = artefact.load(tmp_path / "run", module=fresh)
    assert torch.equal(back.module[0].weight, layers[0].weight)
    notes = records_of(tmp_path / "run" / "records.jsonl")[0].notes
    assert notes == {"network": "Wrapped", "select": "source-val", "selected_step": 4}


def test_the_folder_may_be_named_in_the_run_section(town, of_python, tmp_path):
    of_python["run"]["folder"] = str(tmp_path / "run")
    hardy.train(hardy.create("tiny", str(town), width=8), steps=1, **of_python)
    assert {path.name for path in (tmp_path / "run").iterdir()} == KEPT


@pytest.mark.costly
def test_a_stopped_call_goes_on_where_it_was(town, of_python, tmp_path):
    def made(seed):
        torch.manual_seed(seed)
        return hardy.create("tiny", str(town), width=8)

    stopping = {"name": "hardy_test_stopping:Stopping"}
    module = '''"""Stops."""
import signal
from hardy.algorithms.erm import ERM

class Stopping(ERM):
    """ERM that asks to stop once, after step 3."""

    asked = False

    def __init__(self, network, pixel_loss):
        super().__init__(network, pixel_loss)

    def after_step(self, step):
        if step == 3 and not Stopping.asked:
            Stopping.asked = True
            signal.raise_signal(signal.SIGINT)
'''
    (tmp_path / "hardy_test_stopping.py").write_text(module, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(Stopped):
            hardy.train(made(0), steps=6, algorithm=stopping, folder=tmp_path / "run", **of_python)
        resumed = hardy.train(made(0), steps=6, algorithm=stopping, folder=tmp_path / "run", **of_python)
        whole = hardy.train(made(0), steps=6, algorithm=stopping, **of_python)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_options_are_checked_at_once(town, of_python):
    network = hardy.create("tiny", str(town), width=8)
    for wrong, said in (
        ({"algorithm": "emr"}, "there is no algorithm 'emr'"),
        ({"loss": {"name": "ohem", "treshold": 0.5}}, "did you mean 'threshold'"),
        ({"steps": 0}, "optim.steps"),
        ({"evaluate": {"selct": "last"}}, "did you mean 'select'"),
    ):
        with pytest.raises(InputError, match=said):
            hardy.train(network, **{**of_python, **wrong})


def test_a_network_that_could_not_be_kept_is_refused_before_training(town, of_python, tmp_path):
    with pytest.raises(InputError, match="cannot be saved"):
        hardy.train(Tiny(read_classes(town / "classes.yaml").space), steps=1, folder=tmp_path / "run", **of_python)
    assert not (tmp_path / "run").exists()


def test_refused_images_leave_no_folder_though_the_network_was_kept_first(town, of_python, tmp_path):
    of_python["data"] = {**of_python["data"], "sources": ["folder/dusk"]}
    with pytest.raises(InputError, match="dusk"):
        hardy.train(hardy.create("tiny", str(town), width=8), steps=1, folder=tmp_path / "run", **of_python)
    assert list(tmp_path.iterdir()) == []


def test_a_network_kept_by_a_call_that_trained_nothing_gives_way(town, of_python, tmp_path):
    run = tmp_path / "run"
    hardy.save(hardy.create("tiny", str(town), width=16), run / "start")
    (run / "recipe.yaml").write_text("network: {name: tiny, classes: camvid11}\ndata: {sources: [streets]}\n")
    network = hardy.create("tiny", str(town), width=8)
    expected = network.state_dict()["head.weight"].clone()
    hardy.train(network, steps=1, folder=run, **of_python)
    assert torch.equal(artefact.load(run / "start").state_dict()["head.weight"], expected)


def test_networks_with_the_same_weights_and_another_form_are_two_runs(town, of_python, tmp_path):
    """Their normalisation differs, which no tensor of the weights file shows."""

    def made(mean):
        torch.manual_seed(0)
        network = hardy.create("tiny", str(town), width=8)
        network.renormalise([mean] * 3, [0.5] * 3)
        return network

    call = {"steps": 1, "folder": tmp_path / "run", **of_python}
    hardy.train(made(0.1), **call)
    with pytest.raises(InputError, match=r"holds the run of another recipe .*network\.form was"):
        hardy.train(made(0.2), **call)
    assert artefact.checksum(made(0.1)) == artefact.checksum(made(0.2))
    hardy.train(made(0.1), **call)
    artefact.save(made(0.2), tmp_path / "run" / "start")
    again = recipe.read(tmp_path / "run" / "recipe.yaml", [f"run.folder={tmp_path}/again"])
    with pytest.raises(InputError, match=r"^network\.form: .*start holds another network with these weights"):
        train.run(again, show=False)
