"""Words and recipes that cannot be used: one line that names the word, its value and the right one; exit code 2."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian", "x.yaml"], "No such command 'trian'. Did you mean 'train'?"),
        (["--nothing"], "No such option: --nothing"),
        (["train"], "Missing argument"),
        (["evaluate", "runs/x"], "Missing argument"),
        (["runs", "--nothing"], "No such option: --nothing"),
        (["bench", "runs/x", "--runs", "many"], "Invalid value for '--runs'"),
        (["export", "runs/x", "x.onnx", "--images", "0"], "Invalid value for '--images'"),
        (["list", "criteria"], "there is no kind 'criteria'; did you mean 'criterion'?"),
        (["data", "qqq"], "there is no dataset 'qqq'; there are: acdc, bdd100k, "),
        (["data", "streets/dsuk"], "'streets/dsuk': streets has no domain 'dsuk'; did you mean 'dusk'?"),
    ],
    ids=" ".join,
)
def test_words_that_are_none(refused, words, said):
    assert said in refused(*words)


def test_an_unknown_verb_as_the_shell_sees_it():
    done = subprocess.run([sys.executable, "-m", "hardy", "prnue"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hardy: No such command 'prnue'. Did you mean 'prune'?")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.momentun=0.9", "recipe.yaml: unknown key 'optim.momentun'; did you mean 'momentum'?"),
        ("optin.lr=1", "recipe.yaml: unknown key 'optin'; did you mean 'optim'?"),
        ("optim.lr", "override 'optim.lr' is not of the form key=value"),
        ("run.folder=[", "'[' is not a YAML value"),
        ("network.name=tinny", "there is no network 'tinny'; did you mean 'tiny'?"),
        ("network.name=nowhere_at_all:Net", "network 'nowhere_at_all:Net': no module 'nowhere_at_all'"),
        ("network.name=sys:Net", "network 'sys:Net': no module 'sys'"),
        ("network.widht=8", "Tiny has no option 'widht'; did you mean 'width'?"),
        ("network={run: runs/x, width: 8}", "the folder of a run, as run: runs/x (without options)"),
        ("network={run: runs/x, weights: x.pth}", "the folder of a run, as run: runs/x (without options)"),
        ("algorithm.name=emr", "there is no algorithm 'emr'; did you mean 'erm'?"),
        ("algorithm=emr", "there is no algorithm 'emr'; did you mean 'erm'?"),
        ("algorithm=3", "algorithm: input should be a valid dictionary (got 3)"),
        ("loss.name=omeh", "there is no loss 'omeh'; did you mean 'ohem'?"),
        ("loss={name: ohem, kept: 1}", "OHEM has no option 'kept'"),
        ("prune.criterion.name=iro", "there is no criterion 'iro'; did you mean 'ior'?"),
        ("prune.criterion={name: ior, alhpa: 1}", "IoR has no option 'alhpa'; did you mean 'alpha'?"),
        ("data.datasets.folder.ending=x", "Folder has no option 'ending'; did you mean 'mask_ending'?"),
        ("data.datasets.fodler.mask_ending=x", "there is no dataset 'fodler'; did you mean 'folder'?"),
        ("optim.steps=many", "optim.steps: input should be a valid integer"),
        ("optim.steps=0", "optim.steps: input should be greater than 0 (got 0)"),
        ("optim.lr=.nan", "optim.lr: input should be a finite number (got nan)"),
        ("data.sources=day", "data.sources: input should be a valid list (got 'day')"),
        ("data.crop=[32]", "data.crop.1 is missing"),
        ("data.size=[32, -1]", "data.size.1: input should be greater than 0 (got -1)"),
        ("network.width=wide", "Tiny.width: input should be a valid integer"),
        ("run.seed=1.5", "run.seed: input should be a valid integer"),
        ("run.workers=-1", "run.workers: input should be greater than or equal to 0 (got -1)"),
    ],
)
def test_what_the_recipe_does_not_know_is_said_before_a_folder_is_made(refused, recipe, tmp_path, override, said):
    assert said in refused("train", recipe(), override)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_recipe(refused, tmp_path):
    torn, lines = tmp_path / "torn.yaml", tmp_path / "list.yaml"
    torn.write_text("network: {name: tiny")
    lines.write_text("- 1\n")
    assert f"{torn}: not YAML: " in refused("train", torn)
    assert f"{lines}: a recipe is a mapping of sections: network, data, " in refused("train", lines)
    assert f"{tmp_path}/gone.yaml: cannot be read: No such file" in refused("train", tmp_path / "gone.yaml")
    assert f"{tmp_path}: cannot be read: Is a directory" in refused("train", tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("network.width=0", "Tiny.width: 0 is out of range; it must be 1 or more"),
        ("network={name: fast_scnn, dropout: 1.5}", "FastSCNN.dropout: 1.5 is out of range; it must be from 0 to 1"),
        ("network={name: fast_scnn, dropout: .nan}", "FastSCNN.dropout: input should be a finite number (got nan)"),
        ("network={name: fast_scnn, ffm_dilation: 0}", "FastSCNN.ffm_dilation: 0 is out of range"),
        ("network.classes=citiscapes19", "no label space 'citiscapes19'; did you mean 'cityscapes19'?"),
        ("network.weights=timm", "weights='timm': tiny has no pre-trained encoder"),
        ("loss={name: ohem, threshold: 2}", "ohem threshold=2.0: it must be above 0 and at most 1"),
        ("loss={name: cross_entropy, class_weights: [1, 2]}", "class_weights has 2 numbers; the network has 3 classes"),
        ("data.crop=[8, 32]", "data.crop: 8x32 pixels, but Tiny needs at least 16 on each side"),
        ("data.size=[8, 8]", "data.size: 8x8 pixels, but Tiny needs at least 16 on each side"),
        ("data.scale=[2, 1]", "scale (2.0, 1.0) is not a range of positive factors"),
        ("data.sources=[]", "data.sources: no domain is named to train on"),
        ("data.sources=[folder/dya]", "'folder/dya': folder has no domain 'dya'; did you mean 'day'?"),
        ("data.sources=[folder/day, folder/day]", "domain 'folder/day' is named twice"),
        ("data.unseen=[folder/day]", "data.unseen: 'folder/day' is also in data.sources"),
        ("data.split=given", "folder/day: has no split 'train', only all; use the split 'holdout'"),
        ("evaluate.select=oracle", "evaluate.select: oracle selects by data.unseen, which names no domain"),
        ("evaluate.window=[8, 8]", "evaluate.window: 8x8 pixels, but Tiny needs at least 16 on each side"),
        ("run.trackers=[tensorbord]", "run.trackers: 'tensorbord' is not installed or not known"),
    ],
)
def test_what_only_the_objects_know_is_said_before_the_first_step(refused, recipe, override, said):
    assert said in refused("train", recipe(), override)


def test_a_folder_that_a_mistake_left_takes_the_corrected_recipe(refused, call, recipe):
    refused("train", recipe(), "data.sources=[folder/dya]")
    assert call("train", recipe()).code == 0
    line = refused("train", recipe(), "run.seed=1")
    assert line.endswith("holds the run of another recipe or seed (run.seed was 0, now 1); give another run.folder")


def test_a_loss_that_is_no_number_stops_the_run(refused, recipe):
    line = refused("train", recipe(), "optim.lr=1e30", "optim.steps=20")
    assert "train step 2: segmentation = nan on a batch of domains [0, 0, 0, 0]" in line
    assert "lower optim.lr" in line


def test_a_network_for_pictures_is_not_trained_on_scenes(call, recipe):
    said = call("train", recipe(network={"name": "classifier", "classes": "pacs7"}))
    assert said.code == 2
    loud, line = said.err.splitlines()
    assert "RANDOM WEIGHTS" in loud, "a random start is said on the terminal too"
    assert line == "hardy: folder/day: has a class per pixel, but Classifier predicts one class per image"
