"""Going on from a network with other classes: pruned ones, wrapped ones, from a run, from a file, by a recipe."""

import logging
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import hardy
from hardy.commands import prune as pruning
from hardy.commands import train
from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.engine import start
from hardy.engine.classes import for_classes
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap
from hardy.recipe import from_values, read

OTHER = LabelSpace("other", ("wall", "river", "road"), ((0, 0, 0),) * 3)
OLD = LabelSpace("old", ("road", "wall", "sky", "pole"), ((0, 0, 0),) * 4)


def same(network, new, images):
    """Whether the classes of `OTHER` that are in `OLD` have the logits that they had."""
    with torch.no_grad():
        before, after = network.eval()(images), new(images)
    assert after.shape[1] == 3
    torch.testing.assert_close(after[:, 0], before[:, 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, 2], before[:, 0], rtol=1e-4, atol=1e-5)
    assert not any(torch.allclose(after[:, 1], before[:, place]) for place in range(4))


TRANSPOSED = {"encoder": "test_resnet", "decoder": "linknet"}


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "options"),
    [("tiny", {}), ("espnet", {}), pytest.param("encoder_decoder", TRANSPOSED, marks=pytest.mark.exhaustive)],
)
def test_a_pruned_network_stays_as_pruned(name, options, tmp_path):
    torch.manual_seed(0)
    dense = create(name, OLD, **options)
    small = hardy.prune(dense, criterion="l2", ratio=0.3, prune={"min_width": 1, "round_to": 1}, show=False)
    folder = hardy.save(small, tmp_path / "small")
    new = for_classes(hardy.load(folder), OTHER)
    assert new.plan == small.plan != {}
    same(small, new, torch.rand(2, 3, 64, 96))
    again = hardy.load(hardy.save(new, tmp_path / "new"))
    same(small, again, torch.rand(2, 3, 64, 96))


@pytest.fixture
def gone_on(caplog):
    """The lines said while a network got other classes."""
    caplog.set_level(logging.WARNING, "hardy")
    return lambda: [record.getMessage() for record in caplog.records if "last layer" in record.getMessage()]


def test_what_is_kept_and_drawn_is_said(tmp_path, gone_on):
    folder = hardy.save(create("tiny", OLD), tmp_path / "run")
    hardy.load(folder, classes=OTHER)
    assert gone_on() == [
        f"{folder}: predicts 4 classes, the network 3 (other): new last layer head.bias, head.weight: 2 of 3 classes "
        "by their names, initialised at random: river"
    ]


def test_the_same_classes_change_nothing_but_their_colours(tmp_path, gone_on):
    network = create("tiny", OLD)
    folder = hardy.save(network, tmp_path / "run")
    red = LabelSpace("red", OLD.classes, ((255, 0, 0),) * 4)
    again = hardy.load(folder, classes=red)
    assert again.label_space == red
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())
    assert gone_on() == []


@pytest.mark.costly
@pytest.mark.parametrize("name", ["tiny", "espnet", pytest.param("fast_scnn", marks=pytest.mark.exhaustive)])
def test_a_file_for_other_classes_fills_all_but_the_last_layer(name, tmp_path, gone_on):
    network = create(name, OLD)
    folder = hardy.save(network, tmp_path / "run")
    shutil.copy(folder / "network.safetensors", tmp_path / "plain.safetensors")
    same(network, create(name, OTHER, weights=folder / "network.safetensors").eval(), torch.rand(1, 3, 64, 96))
    new = create(name, OTHER, weights=tmp_path / "plain.safetensors")
    changed = [key for key, value in new.state_dict().items() if value.shape != network.state_dict()[key].shape]
    assert 1 <= len(changed) <= 2
    for key, value in new.state_dict().items():
        assert key in changed or torch.equal(value, network.state_dict()[key]), key
    assert "its classes have no names" in gone_on()[-1]


def test_a_file_that_misfits_in_more_than_classes_is_refused_as_before(tmp_path):
    file = hardy.save(create("tiny", OLD, width=16), tmp_path / "run") / "network.safetensors"
    with pytest.raises(InputError, match=r"these are not the weights of this Tiny"):
        create("tiny", OTHER, weights=file, width=8)


# ------------------------------------------------------------------------------------------------ wrapped modules


class TwoHeads(nn.Module):
    """Logits as the sum of two layers, and a hidden layer that is as wide as there are classes."""

    def __init__(self, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(4, classes, 1), nn.ConvTranspose2d(8, classes, 1, bias=False)

    def forward(self, x):
        x = self.stem(x).tanh()
        return self.one(x) + self.two(self.wide(x).relu())


def sequential(classes=4):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 1))


@pytest.fixture
def factories(monkeypatch):
    module = ModuleType("factories_of_test")
    module.plain = sequential
    monkeypatch.setitem(sys.modules, "factories_of_test", module)


def test_a_wrapped_module_gets_a_new_last_layer_and_its_artefact_loads(factories, tmp_path):
    network = wrap(sequential(), OLD, factory="factories_of_test:plain")
    new = hardy.load(hardy.save(network, tmp_path / "run"), classes=OTHER, trust="factories_of_test")
    same(network, new, torch.rand(1, 3, 32, 32))
    assert isinstance(new.module, nn.Sequential)
    assert new.module[2].out_channels == 3
    same(network, hardy.load(hardy.save(new, tmp_path / "new"), trust="factories_of_test"), torch.rand(1, 3, 32, 32))
    assert network.module[2].out_channels == 4, "the network that it came from is as it was"


def test_a_wrapped_classifier_too():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    network = wrap(module, OLD, image_level=True)
    same(network, for_classes(network, OTHER), torch.rand(2, 3, 16, 16))


def test_where_the_last_layers_cannot_be_identified_one_line_says_so():
    with pytest.raises(InputError, match=r"of the wrapped TwoHeads that predict its 4 classes cannot be identified"):
        for_classes(wrap(TwoHeads(), OLD), OTHER)


def test_several_last_layers_are_found_where_no_other_is_as_wide():
    torch.manual_seed(0)
    module = TwoHeads()
    module.stem, module.one = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 1)
    module.wide = nn.Conv2d(5, 8, 3, padding=1)
    network = wrap(module, OLD)
    same(network, for_classes(network, OTHER), torch.rand(2, 3, 16, 16))


# ------------------------------------------------------------------------------------------------ recipes


@pytest.fixture
def values(town, tmp_path):
    """A recipe that goes on, on the town's three classes, from a network of `OLD`."""
    folder = hardy.save(create("tiny", OLD, width=8), tmp_path / "old")
    return {
        "network": {"run": str(folder), "classes": str(town)},
        "data": {"sources": ["folder/day"], "crop": [32, 48], "datasets": {"folder": {"root": str(town)}}},
        "optim": {"steps": 2, "batch": 4},
        "run": {"folder": str(tmp_path / "new"), "device": "cpu", "workers": 0},
    }


@pytest.mark.costly
def test_a_recipe_trains_the_classes_that_it_names(values, town):
    recipe = from_values(values)
    network = hardy.load(train.run(recipe))
    assert network.label_space == find_label_space(town)
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    folder = Path(recipe.run.folder)
    assert "new last layer head.bias, head.weight: 3 of 3 classes by their names" in (folder / "train.log").read_text()
    assert read(folder / "recipe.yaml") == recipe


def test_without_classes_a_run_keeps_its_own(values, tmp_path):
    alone = from_values({**values, "network": {"run": values["network"]["run"]}})
    assert alone.network.classes is None
    assert start.network(alone.network).label_space == OLD
    assert alone.digest() != from_values(values).digest()


def test_a_network_that_is_named_predicts_the_classes_of_cityscapes_where_nothing_is_said(values):
    assert from_values({**values, "network": "tiny"}).network.classes == "cityscapes19"


def test_pruning_refuses_a_last_layer_that_nobody_trained(values):
    recipe = from_values({**values, "prune": {"criterion": "l2", "schedule": "one_shot", "ratio": 0.3}})
    with pytest.raises(InputError, match=r"network.classes: .* a new, untrained last layer; train that"):
        pruning.run(recipe)
