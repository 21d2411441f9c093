"""Descriptions of saved networks that no network can have: refused before anything is built from them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load, save

import hardy
from hardy.engine import artefact
from hardy.errors import InputError
from hardy.ops.tensors import check_finite
from hardy.stored import sealed


@pytest.fixture
def edited(trained, tmp_path):
    """``edited({"changes": ...})``: a copy of the trained network with other entries and a right checksum."""

    def copied(changes, weights=None):
        folder = shutil.copytree(trained, tmp_path / "net")
        if weights is not None:
            (folder / "network.safetensors").write_bytes(weights)
            changes = {**changes, "sha256": artefact._sha256(weights)}
        values = json.loads((folder / "network.json").read_text(encoding="utf-8")) | changes
        values.pop("description_sha256")
        (folder / "network.json").write_text(json.dumps(sealed(values)), encoding="utf-8")
        return folder

    return copied


def architecture(**options):
    return {"architecture": {"name": "tiny", "options": {"width": 16, "aux": False} | options}}


def pruned(plan):
    return {"changes": [{"change": "prune", "plan": plan}]}


TUNE = {"change": "tune", "name": "frozen", "options": {}}
REST = {"sha256": "0", "from": {"run": ".", "sha256": "0"}}
LABELS = {"name": "a", "classes": ["x", "y", "z"], "colours": [[0, 0, 0]] * 3}
BAD = {
    "plan is a list": (pruned([]), "the plan is []"),
    "side is text": (pruned({"detail.0.0": {"out": "all"}}), "must be a list of whole numbers"),
    "negative": (pruned({"detail.0.0": {"out": [-1, 0]}}), "must be a list of whole numbers"),
    "float": (pruned({"detail.0.0": {"out": [0.0, 1.0]}}), "must be a list of whole numbers"),
    "bool": (pruned({"detail.0.0": {"out": [False, True]}}), "must be a list of whole numbers"),
    "nested": (pruned({"detail.0.0": {"out": [[0], [1]]}}), "must be a list of whole numbers"),
    "twice": (pruned({"detail.0.0": {"out": [0, 0]}}), "must ascend, each once"),
    "falling": (pruned({"detail.0.0": {"out": [1, 0]}}), "must ascend, each once"),
    "out of range": (pruned({"detail.0.0": {"out": [0, 99]}}), "keeps channel 99 of 'detail.0.0' (out)"),
    "huge": (pruned({"detail.0.0": {"out": [2**62]}}), "which has"),
    "too huge": (pruned({"detail.0.0": {"out": [10**30]}}), "must be a list of whole numbers"),
    "none": (pruned({"detail.0.0": {"out": []}}), "keeps none of the channels"),
    "no side": (pruned({"detail.0.0": {"up": [0]}}), "which has 0"),
    "no axis": (pruned({"detail.0.0": {"weight:x": [0]}}), "which has 0"),
    "many colons": (pruned({"detail.0.0": {"weight:0:1": [0]}}), "which has 0"),
    "plan too deep": (pruned({"a": {"out": [[[[0] * 3] * 3] * 3] * 3}}), "must be a list of whole numbers"),
    "changes are a mapping": ({"changes": {}}, "it must be a list"),
    "too many changes": ({"changes": [{"change": "prune", "plan": {}}] * 1001}, "at most 1000 changes"),
    "a change is a text": ({"changes": ["prune"]}, "changes[0] is 'prune'; it must be"),
    "an unknown change": ({"changes": [{"change": "split"}]}, "changes[0] is {'change': 'split'}; it must be"),
    "a change is a list": ({"changes": [{"change": ["prune"]}]}, "it must be"),
    "a change with more": ({"changes": [{"change": "merge", "code": 1}]}, "has the entries change, code"),
    "a change with less": ({"changes": [{"change": "tune", "name": "frozen"}]}, "it must have: change, name, options"),
    "a tuner of a number": ({"changes": [TUNE | {"name": 3}]}, "must be a string"),
    "a tuner of no mapping": ({"changes": [TUNE | {"options": []}]}, "a mapping"),
    "a tuner that is not there": ({"changes": [TUNE | {"name": "frosen"}]}, "did you mean 'frozen'"),
    "a tuner's option": ({"changes": [TUNE | {"options": {"rank": 1}}]}, "has no option 'rank'"),
    "a tuner's option by its name": ({"changes": [TUNE | {"options": {"name": "x"}}]}, "cannot be applied"),
    "a tuner from elsewhere": ({"changes": [TUNE | {"name": "os:system"}]}, "would run code of module 'os'"),
    "a network without an encoder": ({"changes": [TUNE]}, "Tiny names no encoder"),
    "merged before it is tuned": ({"changes": [{"change": "merge"}]}, "is a merge, but no tuner is attached there"),
    "tuned twice": ({"changes": [TUNE, TUNE]}, "is a tune, but a tuner is attached there"),
    "rest is a text": ({"rest": "x"}, "rest is 'x'; it must be"),
    "rest from nowhere": ({"rest": {"sha256": "0", "from": {}}}, "it must be"),
    "rest with more": ({"rest": REST | {"code": 1}}, "it must be"),
    "rest from a number": ({"rest": REST | {"from": {"run": 3, "sha256": "0"}}}, "rest.from.run is 3"),
    "rest without a tuner": ({"rest": REST}, "no tuner with frozen weights is attached"),
    "an entry of format 1": ({"plan": {}}, "has an unknown entry 'plan'"),
    "no architecture": ({"architecture": None}, "architecture is None"),
    "name is a list": ({"architecture": {"name": [], "options": {}}}, "must be a string"),
    "options are text": ({"architecture": {"name": "tiny", "options": "x"}}, "a mapping"),
    "an entry more": ({"architecture": {"name": "tiny", "options": {}, "code": "x"}}, "unknown entry 'code'"),
    "mean of text": ({"architecture": {"name": "tiny", "options": {}, "mean": "abc", "std": [1, 1, 1]}}, "mean 'abc'"),
    "mean alone": ({"architecture": {"name": "tiny", "options": {}, "mean": [0, 0, 0]}}, "must both be given"),
    "width 0": (architecture(width=0), ""),
    "width below 0": (architecture(width=-8), ""),
    "width of petabytes": (architecture(width=10**7), "GiB"),
    "width past 64 bits": (architecture(width=10**30), ""),
    "wrapped": ({"architecture": {"name": "wrapped", "options": {"image_level": "yes"}}}, "must be true or false"),
    "wrapped mean": ({"architecture": {"name": "wrapped", "options": {"mean": [1]}}}, "wrapped.mean"),
    "wrapped option": ({"architecture": {"name": "wrapped", "options": {"mode": 1}}}, "has no option 'mode'"),
    "labels are a list": ({"labels": []}, "the label space is []; it must have name, classes and colours"),
    "labels are a number": ({"labels": 5}, "the label space is 5; it must have name, classes and colours"),
    "classes are text": ({"labels": LABELS | {"classes": "xyz"}}, "classes 'xyz' must be text and a list of texts"),
    "a class is a number": ({"labels": LABELS | {"classes": ["x", "y", 3]}}, "must be text and a list of texts"),
    "colours are a number": ({"labels": LABELS | {"colours": 7}}, "colours 7 must be a list with a colour for each"),
    "a colour is a number": ({"labels": LABELS | {"colours": [7] * 3}}, "colour 7 is not three numbers"),
    "a colour of two": ({"labels": LABELS | {"colours": [[1, 2]] * 3}}, "colour (1, 2) is not three numbers"),
    "a colour is text": ({"labels": LABELS | {"colours": ["abc"] * 3}}, "is not three numbers"),
    "a colour is infinite": ({"labels": LABELS | {"colours": [[1e308] * 3] * 3}}, "is not three numbers"),
    "too many classes": ({"labels": LABELS | {"classes": [str(n) for n in range(10_000)]}}, "10000 classes"),
}


@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD)
def test_a_description_from_which_nothing_can_be_built(changes, said, edited, refused):
    folder = edited(changes)
    line = refused("bench", folder)
    assert line.startswith((f"{folder}: ", f"{folder}/network.json: "))
    assert said in line
    assert len(line) < 600


@pytest.mark.parametrize(
    "text", ["[" * 5000, '{"a":' * 5000, '{"format": NaN}', '["\\ud800"]'], ids=["[", "{", "nan", "u"]
)
def test_json_that_is_a_trap(text, edited, refused):
    folder = edited({})
    (folder / "network.json").write_text(text, encoding="utf-8")
    assert refused("bench", folder).startswith(f"{folder}/network.json: not a network's description")


def test_a_description_that_was_changed_is_refused_and_one_from_before_there_were_checksums_is_not(edited, refused):
    folder = edited({})
    file = folder / "network.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["labels"]["colours"][0][0] ^= 1
    file.write_text(json.dumps(values), encoding="utf-8")
    assert refused("bench", folder).startswith(f"{file}: does not match its own checksum")
    del values["description_sha256"]
    file.write_text(json.dumps(values), encoding="utf-8")
    assert hardy.load(folder).label_space.colours[0][0] == values["labels"]["colours"][0][0]


def test_options_that_ask_for_endless_layers_stop(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("hardy.networks.building.described._MODULES", 50)
    with pytest.raises(InputError, match="its options need more than 50 modules"):
        hardy.load(hardy.save(hardy.create("fast_scnn", "camvid11"), tmp_path / "net"))


# ------------------------------------------------------------------------------------------------- weights not finite


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["head.bias", "detail.0.1.running_var"])
def test_weights_that_are_not_finite_are_refused_by_every_verb(
    edited, trained, refused, recipe, tmp_path, town, rubbish, name
):
    weights = load((trained / "network.safetensors").read_bytes())
    weights[name][0] = rubbish
    folder = edited({}, save(weights))
    said = f"{folder}: {name} holds NaN or infinity"
    file = recipe(network={"run": str(folder)}, prune={"ratio": 0.3})
    for words in (
        ("evaluate", folder, "folder/day", "--root", town),
        ("predict", folder, town, tmp_path / "masks"),
        ("export", folder, tmp_path / "x.onnx"),
        ("prune", file),
        ("train", file, "prune=null"),
    ):
        assert refused(*words).startswith(said), words
    assert not (tmp_path / "masks").exists()
    broken = hardy.load(folder)
    for call in (
        lambda: hardy.evaluate(broken, ["folder/day"], root=town),
        lambda: hardy.predict(broken, town, tmp_path / "masks"),
        lambda: hardy.export(broken, tmp_path / "x.onnx", size=(32, 32)),
        lambda: hardy.prune(broken, criterion="l2", ratio=0.5, prune={"schedule": "one_shot"}),
        lambda: hardy.prune(torch.nn.Sequential(broken), torch.rand(1, 3, 32, 32), ratio=0.5),
    ):
        with pytest.raises(InputError, match="holds NaN or infinity"):
            call()


def test_a_mask_of_minus_infinity_is_no_fault():
    module = torch.nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    check_finite(module)
    module.mask[0] = torch.nan
    with pytest.raises(InputError, match="Linear: mask holds NaN or infinity"):
        check_finite(module)


def test_saving_a_plain_module_says_what_to_do(tmp_path):
    with pytest.raises(
        InputError, match=r"Linear is not a Network, so it cannot be saved; wrap it: hardy\.save\(hardy\.wrap"
    ):
        hardy.save(torch.nn.Linear(2, 2), tmp_path / "net")
    assert not (tmp_path / "net").exists()
