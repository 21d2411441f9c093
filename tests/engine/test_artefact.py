"""A folder gives back the network it was given, whatever happened to it, and refuses what is torn or foreign."""

import errno
import json
import os
import pickle
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import hardy
from hardy.engine import artefact
from hardy.errors import InputError
from hardy.networks.tiny import Tiny
from hardy.pruning.remove import replay
from hardy.stored import sealed

IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))

FACTORY = '''"""A module of the user's."""

from torch import nn


def make():
    """Two convolutions and a norm."""
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1))


not_a_module = dict
'''

PLAN = {"module.0": {"out": [0, 2, 5]}, "module.1": {"out": [0, 2, 5]}, "module.3": {"in": [0, 2, 5]}}


@pytest.fixture
def factory(tmp_path, monkeypatch):
    (tmp_path / "factory_for_artefact.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "factory_for_artefact:make"


def used(network, seed=0):
    """``network`` after a forward pass in training mode, so that its running statistics are its own."""
    torch.manual_seed(seed)
    network.train()(IMAGES)
    return network.eval()


def alike(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
        assert value.dtype == states[1][name].dtype, name
    with torch.no_grad():
        assert torch.equal(one(IMAGES), other(IMAGES))
    return True


# ------------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize("options", [{}, {"width": 8, "aux": True}], ids=str)
def test_a_dense_network_comes_back(tmp_path, three, options):
    network = used(hardy.create("tiny", three, **options))
    folder = hardy.save(network, tmp_path / "runs" / "x")
    assert sorted(path.name for path in folder.iterdir()) == ["network.json", "network.safetensors"]
    back = hardy.load(folder)
    assert alike(network, back)
    assert not back.training
    assert back.label_space == three
    assert (
        back.architecture == network.architecture == {"name": "tiny", "options": {"width": 32, "aux": False} | options}
    )
    assert alike(network, hardy.load(folder / "network.json"))
    assert alike(network, hardy.load(str(folder)))


def test_a_pruned_network_comes_back_and_can_be_pruned_again(tmp_path, three, factory):
    network = artefact.rebuild({"name": "wrapped", "options": {"factory": factory}}, three)
    replay(network, PLAN)
    used(network)
    assert network.module[0].weight.shape == (3, 3, 3, 3)
    folder = hardy.save(network, tmp_path / "run")
    back = hardy.load(folder, trust=["factory_for_artefact"])
    assert alike(network, back)
    assert back.plan == PLAN
    assert [module.num_features for module in back.modules() if isinstance(module, nn.BatchNorm2d)] == [3]
    replay(back, {"module.0": {"out": [0, 2]}, "module.1": {"out": [0, 2]}, "module.3": {"in": [0, 2]}})
    again = hardy.load(hardy.save(back.eval(), tmp_path / "again"), trust="factory_for_artefact")
    assert alike(back, again)
    assert again.plan["module.0"] == {"out": [0, 5]}, "channels of the dense network"


def test_other_weights_can_be_saved_in_place_of_its_own(tmp_path, three):
    network = used(hardy.create("tiny", three, width=8))
    average = {
        name: value * 0.5 if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    back = hardy.load(hardy.save(network, tmp_path, weights=average))
    assert all(torch.equal(value, average[name]) for name, value in back.state_dict().items())


def test_a_wrapped_module_comes_back_through_its_factory_or_is_given(tmp_path, three, factory):
    network = used(hardy.wrap(nn.Sequential(nn.Conv2d(3, 3, 1)), three, mean=(0.1, 0.2, 0.3), std=(1, 2, 3)))
    folder = hardy.save(network, tmp_path / "given")
    with pytest.raises(InputError, match=re.escape(f"{folder}: a wrapped network needs its module, or a factory")):
        hardy.load(folder)
    assert alike(network, artefact.load(folder, module=nn.Sequential(nn.Conv2d(3, 3, 1))))
    with pytest.raises(InputError, match="the weights do not fit the network"):
        artefact.load(folder, module=nn.Sequential(nn.Conv2d(3, 4, 1)))

    made = artefact.rebuild({"name": "wrapped", "options": {"factory": factory}}, three)
    assert alike(used(made), hardy.load(hardy.save(made, tmp_path / "made"), trust=["factory_for_artefact"]))


def test_weights_that_two_layers_share_come_back(tmp_path, three):
    def tied():
        layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        layers[1].weight = layers[0].weight
        return layers

    network = used(hardy.wrap(tied(), three))
    assert alike(network, artefact.load(hardy.save(network, tmp_path), module=tied()))


def test_saving_changes_nothing_in_the_network(tmp_path, three):
    network = hardy.create("tiny", three, width=8).to(memory_format=torch.channels_last)
    before = {name: (value.clone(), value.stride()) for name, value in network.state_dict().items()}
    hardy.save(network, tmp_path)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.stride() == before[name][1]


def test_a_network_that_could_not_be_built_again_is_not_saved(tmp_path, three):
    with pytest.raises(InputError, match=r"this Tiny has no description of its architecture.*'your\.module:Tiny'"):
        hardy.save(Tiny(three), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------- what is refused


@pytest.fixture
def folder(tmp_path, three):
    return hardy.save(used(hardy.create("tiny", three, width=8)), tmp_path / "run")


def refusal(folder):
    with pytest.raises(InputError) as caught:
        hardy.load(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def edit(folder, **changes):
    file = folder / "network.json"
    description = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps(sealed(description)), encoding="utf-8")


def test_a_torn_pair_is_refused(folder, tmp_path, three):
    other = hardy.save(used(hardy.create("tiny", three, width=8), 1), tmp_path / "other")
    (folder / "network.safetensors").write_bytes((other / "network.safetensors").read_bytes())
    assert "network.safetensors does not match network.json (torn write?); save it again" in refusal(folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_weights_are_refused(folder, share):
    file = folder / "network.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert "does not match network.json" in refusal(folder)
    edit(folder, sha256=artefact._sha256(file.read_bytes()))
    assert "the weights do not fit the network" in refusal(folder)


def test_missing_parts_are_named(folder, tmp_path):
    (folder / "network.safetensors").unlink()
    assert "network.safetensors: cannot be read: No such file" in refusal(folder)
    (folder / "network.json").unlink()
    assert "no network.json here, so this is no network of Hardy's" in refusal(folder)
    assert "no network.json here" in refusal(tmp_path / "nowhere")


def test_a_pickle_is_refused_and_not_run(folder, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    file = folder / "network.safetensors"
    file.write_bytes(pickle.dumps(Harm()))
    edit(folder, sha256=artefact._sha256(file.read_bytes()))
    assert "the weights do not fit the network" in refusal(folder)
    (folder / "network.json").unlink()
    torch.save({"harm": Harm()}, folder / "model.pth")
    (folder / "model.pth").rename(folder / "model.pt")
    assert "model.pt is a pickle, which Hardy does not run" in refusal(folder)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '"hardy-network/1"'])
def test_a_description_that_is_none_is_refused(folder, text):
    (folder / "network.json").write_text(text, encoding="utf-8")
    assert "not a network's description" in refusal(folder)


def test_another_version_is_refused(folder):
    edit(folder, format="hardy-network/7")
    assert "format 'hardy-network/7', but this Hardy reads 'hardy-network/1' and 'hardy-network/2'" in refusal(folder)


def test_other_architectures_classes_and_plans_are_refused(folder):
    edit(folder, architecture={"name": "tiny", "options": {"width": 16, "aux": False}})
    assert "the weights do not fit the network" in refusal(folder)
    edit(folder, architecture={"name": "tinny", "options": {}})
    assert "there is no network 'tinny'; did you mean 'tiny'?" in refusal(folder)
    edit(folder, architecture={"name": "tiny", "options": {"widht": 8}})
    assert "has no option 'widht'" in refusal(folder)
    edit(
        folder,
        architecture={"name": "tiny", "options": {"width": 8}},
        labels=hardy.create("tiny", "idd7").label_space.to_json(),
    )
    assert "the weights do not fit the network" in refusal(folder)
    edit(folder, changes=[{"change": "prune", "plan": {"nowhere": {"out": [0, 1]}}}])
    assert "the plan keeps channel 1 of 'nowhere' (out), which has 0" in refusal(folder)
    edit(folder, changes=[{"change": "prune", "plan": {"stem.0": {"out": []}}}])
    assert "the plan keeps none of the channels of 'stem.0' (out); it must keep at least one" in refusal(folder)


def test_weights_of_other_names_are_refused(folder):
    file = folder / "network.safetensors"
    weights = load_file(file)
    weights.pop("head.bias")
    save_file(weights, file)
    edit(folder, sha256=artefact._sha256(file.read_bytes()))
    assert "Missing key(s) in state_dict" in refusal(folder)


@pytest.mark.parametrize("kind", [torch.complex64, torch.int64, torch.bool])
def test_weights_of_another_kind_of_number_are_refused(folder, kind):
    file = folder / "network.safetensors"
    weights = load_file(file)
    save_file({**weights, "head.bias": weights["head.bias"].to(kind)}, file)
    edit(folder, sha256=artefact._sha256(file.read_bytes()))
    assert refusal(folder).endswith(f"do not fit the network: head.bias is of {kind}, not of torch.float32")


def test_weights_of_half_the_precision_come_back(folder):
    file = folder / "network.safetensors"
    weights = load_file(file)
    save_file({**weights, "head.bias": weights["head.bias"].half()}, file)
    edit(folder, sha256=artefact._sha256(file.read_bytes()))
    assert torch.equal(hardy.load(folder).head.bias, weights["head.bias"].half().float())


# -------------------------------------------------------------------------------------------- whole or absent


@pytest.mark.parametrize(("what", "failing"), [("fsync", 1), ("fsync", 2), ("replace", 1)])
def test_a_full_disk_leaves_the_old_network_or_none(folder, tmp_path, three, monkeypatch, what, failing):
    """The disk fills up at the first or the second file; a rename, which comes after both, needs no room."""
    before = hardy.load(folder)
    real, calls = getattr(os, what), []

    def full(*given):
        calls.append(given)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given)

    monkeypatch.setattr(os, what, full)
    for place in (folder, tmp_path / "new"):
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            hardy.save(used(hardy.create("tiny", three, width=8), 1), place)
    monkeypatch.undo()
    assert alike(before, hardy.load(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["network.json", "network.safetensors"]
    assert list((tmp_path / "new").iterdir()) == []
