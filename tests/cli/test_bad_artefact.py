"""Networks, weights and checkpoints that cannot be used: torn, of another version, of other classes, or a pickle."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import hardy
from hardy.engine.fit import Fit


@pytest.fixture
def damaged(trained, tmp_path):
    """``damaged("network.json", change)``: a copy of the trained folder whose file was ``change``d, bytes to bytes."""

    def copy(name, change):
        folder = shutil.copytree(trained, tmp_path / "damaged")
        content = change((folder / name).read_bytes())
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        return folder

    return copy


def without(key):
    def change(content: bytes) -> bytes:
        return json.dumps({name: value for name, value in json.loads(content).items() if name != key}).encode()

    return change


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("network.json", lambda content: None, "no network.json here, so this is no network of Hardy's"),
        ("network.json", lambda content: b"{", "network.json: not a network's description; save the network again"),
        ("network.json", lambda content: b"[]", "network.json: not a network's description"),
        ("network.json", lambda content: b"\xff\xfe", "network.json: not a network's description"),
        ("network.json", without("changes"), "network.json: lacks changes; save the network again"),
        (
            "network.json",
            lambda content: content.replace(b"hardy-network/2", b"hardy-network/9"),
            "network.json: format 'hardy-network/9', but this Hardy reads 'hardy-network/1' and 'hardy-network/2'",
        ),
        ("network.safetensors", lambda content: None, "network.safetensors: cannot be read: No such file"),
        ("network.safetensors", lambda content: content[:700], "network.safetensors does not match network.json (torn"),
        ("network.safetensors", lambda content: pickle.dumps({}), "network.safetensors does not match network.json"),
    ],
    ids=["gone", "torn", "list", "bytes", "poor", "version", "no weights", "truncated", "pickle"],
)
def test_a_run_folder_that_is_damaged(refused, damaged, name, change, said):
    folder = damaged(name, change)
    line = refused("bench", folder, "--size", "32x32")
    assert line.startswith(str(folder))
    assert said in line


def test_a_folder_that_holds_a_pickle(refused, tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "network.pt")
    line = refused("bench", tmp_path)
    assert line.endswith("so this is no network of Hardy's; network.pt is a pickle, which Hardy does not run")


@pytest.mark.parametrize(
    "words",
    [("evaluate", "streets/day"), ("bench",), ("export", "x.onnx"), ("predict", "photos", "masks")],
    ids=lambda words: words[0],
)
def test_every_verb_that_takes_a_run_refuses_a_folder_that_is_none(refused, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    verb, *rest = words
    assert refused(verb, tmp_path, *rest) == f"{tmp_path}: no network.json here, so this is no network of Hardy's"
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("verb", ["train", "prune"])
def test_a_recipe_that_goes_on_from_no_run(refused, recipe, tmp_path, verb):
    chosen = {"prune": {"ratio": 0.3}} if verb == "prune" else {}
    file = recipe(network={"run": str(tmp_path / "gone")}, **chosen)
    assert refused(verb, file) == f"{tmp_path}/gone: no network.json here, so this is no network of Hardy's"


# --------------------------------------------------------------------------------------------------- other classes


@pytest.fixture(scope="module")
def of_camvid(tmp_path_factory) -> Path:
    """A network of eleven classes, saved."""
    return hardy.save(hardy.create("tiny", "camvid11", width=16), tmp_path_factory.mktemp("camvid"))


def test_weights_of_another_network(refused, recipe, tmp_path):
    weights = hardy.create("tiny", "camvid11", width=8).state_dict()
    save_file(weights, tmp_path / "eleven.safetensors")
    torch.save(weights, tmp_path / "eleven.pth")
    for name in ("eleven.safetensors", "eleven.pth"):
        line = refused("train", recipe(), f"network.weights={tmp_path / name}")
        assert line.startswith(f"{tmp_path / name}: these are not the weights of this Tiny: ")
        assert "of another shape (detail.0.0.weight (8, 3, 3, 3) for (16, 3, 3, 3)" in line


@pytest.mark.parametrize("verb", ["train", "prune"])
def test_a_run_of_other_classes(refused, recipe, of_camvid, town, verb):
    chosen = {"prune": {"ratio": 0.3}} if verb == "prune" else {}
    file = recipe(network={"run": str(of_camvid)}, **chosen)
    line = f"folder/day: no map is declared between its labels ({town.name}) and the network's (camvid11)"
    assert refused(verb, file) == line


def test_evaluation_on_classes_without_a_map(refused, of_camvid, town):
    line = refused("evaluate", of_camvid, "folder/day", "--root", town)
    assert line == f"folder/day: no map is declared between its labels ({town.name}) and the network's (camvid11)"
    assert not (of_camvid / "records.jsonl").exists()


# -------------------------------------------------------------------------------------------------- weights files


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_weights_files_that_hold_no_weights(refused, recipe, tmp_path):
    whole = hardy.create("tiny", "camvid11", width=8).state_dict()
    save_file(whole, tmp_path / "torn.safetensors")
    torch.save(whole, tmp_path / "torn.pth")
    for name in ("torn.safetensors", "torn.pth"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:900])
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    for name, said in (
        ("torn.safetensors", "cannot be read as weights ("),
        ("torn.pth", "cannot be read as weights ("),
        ("number.pth", "holds something other than named tensors; save the state_dict alone"),
        ("gone.pth", "no such weights file"),
    ):
        assert refused("train", recipe(), f"network.weights={tmp_path / name}").startswith(f"{tmp_path / name}: {said}")
    assert "is a folder: load a run with hardy.load" in refused("train", recipe(), f"network.weights={tmp_path}")


@pytest.mark.costly
def test_a_pickle_is_not_run_and_torch_says_nothing_beside(recipe, tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Touch(tmp_path / "evil")))
    words = ["train", str(recipe()), f"network.weights={tmp_path}/evil.pth"]
    done = subprocess.run([sys.executable, "-m", "hardy", *words], capture_output=True, text=True, check=False)
    reason = "cannot be read as weights (a pickle of more than tensors, which is not run)"
    assert done.stderr == f"hardy: {tmp_path}/evil.pth: {reason}; give a .safetensors or state_dict\n"
    assert done.returncode == 2
    assert not (tmp_path / "evil").exists()


# ---------------------------------------------------------------------------------------------------- checkpoints


SIX = {"optim": {"steps": 6}, "run": {"checkpoint_every": 2}, "evaluate": {"select": "source-val", "every": 2}}


@pytest.fixture(scope="module")
def stopped_once(call, recipe_in, tmp_path_factory) -> Path:
    """The folder of a run that a defect stopped after four of six steps, with its checkpoint; not to be written to."""

    def step(self, batch):
        assert self.progress.step < 4, "a defect"
        real(self, batch)

    folder = tmp_path_factory.mktemp("stopped")
    real = Fit._step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "_step", step)
        with pytest.raises(AssertionError, match="a defect"):
            call("train", recipe_in(folder, **SIX))
    assert (folder / "run" / "checkpoint.safetensors").exists()
    return folder / "run"


@pytest.fixture
def stopped(stopped_once, recipe, tmp_path) -> Path:
    """A copy of it, with its recipe beside it."""
    recipe(**SIX)
    return shutil.copytree(stopped_once, tmp_path / "run")


@pytest.mark.costly
def test_an_internal_error_keeps_its_traceback_and_the_run_goes_on(stopped, call, tmp_path):
    assert call("train", tmp_path / "recipe.yaml").code == 0
    assert (stopped / "network.json").exists()


@pytest.mark.costly
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:300]), "damaged or not a checkpoint ("),
        (lambda file: file.write_bytes(file.read_bytes()[:-10]), "damaged or not a checkpoint ("),
        (lambda file: file.write_bytes(pickle.dumps({})), "damaged or not a checkpoint ("),
        (lambda file: save_file({"a": torch.zeros(1)}, file), "format None, but this Hardy reads 'hardy-checkpoint/1'"),
        (
            lambda file: save_file({"a": torch.zeros(1)}, file, {"format": "hardy-checkpoint/9"}),
            "format 'hardy-checkpoint/9', but this Hardy reads 'hardy-checkpoint/1'",
        ),
        (
            lambda file: save_file({"a": torch.zeros(1)}, file, {"format": "hardy-checkpoint/1", "state": "{"}),
            "its header is damaged; delete it to start again",
        ),
    ],
    ids=["truncated", "shorter", "pickle", "foreign", "version", "header"],
)
def test_a_checkpoint_that_cannot_be_gone_on_from(stopped, refused, tmp_path, change, said):
    file = stopped / "checkpoint.safetensors"
    change(file)
    before = file.read_bytes()
    assert refused("train", tmp_path / "recipe.yaml").startswith(f"{file}: {said}")
    assert file.read_bytes() == before


def test_the_checkpoint_of_another_recipe_or_seed(stopped, refused, tmp_path):
    line = f"{stopped}: holds the run of another recipe or seed ({{}}); give another run.folder"
    lr, seed = "optim.lr was 0.01, now 0.5", "run.seed was 0, now 1"
    assert refused("train", tmp_path / "recipe.yaml", "optim.lr=0.5") == line.format(lr)
    assert refused("train", tmp_path / "recipe.yaml", "run.seed=1") == line.format(seed)


def test_selected_weights_that_are_torn(stopped, refused, tmp_path):
    best = stopped / "best.safetensors"
    best.write_bytes(best.read_bytes()[:300])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hardy.engine.protocol.scored", lambda *all_: -1.0)
        line = refused("train", tmp_path / "recipe.yaml")
    assert line.startswith(f"{best}: damaged or missing (")
