"""Images of a run's sources for methods that are not source-free: which, in what order, and how they reach eata."""

import sys

import numpy as np
import pytest
import torch

import hardy
from hardy.adaptation.eata import EATA
from hardy.cli import main
from hardy.engine import protocol
from hardy.engine.adapting import chosen
from hardy.engine.protocol import Settings
from hardy.engine.source_images import source_images
from hardy.errors import InputError
from hardy.recipe import Data, RunSection, from_values
from hardy.seed import seeded


def given(town, *names, **more):
    return Data(sources=names or ("folder/day",), datasets={"folder": {"root": str(town)}}, **more)


def drawn(data, seed=0, **more):
    return [hash(image.numpy().tobytes()) for image in source_images(data, seed, **more)]


def test_the_seed_draws_training_images_each_once(town):
    every = drawn(given(town))
    assert len(every) == len(set(every)) == 11, "a tenth of twelve, at least one, is held out"
    assert drawn(given(town)) == every
    assert sorted(drawn(given(town), seed=1)) != sorted(every), "another one is held out"
    assert drawn(given(town), most=4) == every[:4]
    both = drawn(given(town, "folder/day", "folder/night"), most=4)
    assert both[:2] == every[:2], "half of them from each domain"
    assert len(both) == 4
    assert next(source_images(given(town, size=(24, 40)), 0)).shape == (1, 3, 24, 40)
    assert source_images(Data(), 0) is None


def test_sources_that_cannot_be_read_are_left_out(town, tmp_path):
    assert drawn(given(town, "folder/dawn", "folder/day")) == drawn(given(town))
    lost = source_images(given(tmp_path / "none", "folder/day", "folder/night"), 0)
    with pytest.raises(InputError, match="images of the source domains, and none can be read; the first, folder/day: "):
        next(lost)


@pytest.fixture
def folder(town, tmp_path):
    """A run whose recipe says that it was trained on the town's day."""
    with seeded(0, "network"):
        network = hardy.create("tiny", classes=str(town), width=8)
    hardy.save(network, tmp_path / "x")
    return tmp_path / "x"


@pytest.fixture
def fishers(monkeypatch):
    """How many images each method of eata was made with."""
    counts = []
    made = EATA.__init__

    def counting(self, network, source_images, **options):
        images = list(source_images)
        counts.append(len(images))
        made(self, network, images, **options)

    monkeypatch.setattr(EATA, "__init__", counting)
    return counts


def called(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["hardy", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.mark.costly
def test_evaluate_streams_and_predict_of_a_run_have_them(folder, town, tmp_path, monkeypatch, capsys, fishers):
    options = ("--dataset", f"folder.root={town}", "--device", "cpu", "adapt.name=eata")
    assert called(monkeypatch, "evaluate", folder, "folder/night", *options) == 2
    assert "eata is not source-free: it needs clean images of the source domain, and none are given" in (
        capsys.readouterr().err
    )
    values = {"network": {"name": "tiny"}, "data": given(town).model_dump(mode="json")}
    from_values(values, origin="test").write(folder / "recipe.yaml", {})
    assert called(monkeypatch, "evaluate", folder, "folder/night", *options) == 0, capsys.readouterr().err
    stream = ("stream.kind=mixed", "stream.images=1", "stream.probe=0", "stream.window=1")
    assert called(monkeypatch, "evaluate", folder, "folder/night", *options, *stream) == 0, capsys.readouterr().err
    photos = (town / "images/night", tmp_path / "masks")
    assert called(monkeypatch, "predict", folder, *photos, "--device", "cpu", "adapt.name=eata") == 0
    assert fishers == [11, 11, 11]


def test_what_a_recipe_measures_has_images_of_its_own_sources(town, fishers):
    with seeded(0, "network"):
        network = hardy.create("tiny", classes=str(town), width=8)
    data = given(town, unseen=("folder/night",))
    settings = Settings(data, run=RunSection(device="cpu", workers=0))
    parts = [("unseen", part) for part in protocol.split(data, 0).unseen]
    measured = protocol.measure(network, parts, settings, adapt=chosen("eata"))
    assert len(measured.rows) == 1
    assert fishers == [11]


def test_in_python_they_are_given(town, tmp_path, fishers):
    with seeded(0, "network"):
        network = hardy.create("tiny", classes=str(town), width=8)
    named = {"datasets": {"folder": {"root": str(town)}}, "device": "cpu"}
    hardy.evaluate(network, ["folder/night"], adapt="eata", source_images=[torch.rand(1, 3, 32, 48)] * 3, **named)
    assert fishers == [3]
    with pytest.raises(InputError, match="and none are given"):
        hardy.evaluate(network, ["folder/night"], adapt="eata", **named)
    image = np.zeros((32, 48, 3), dtype=np.uint8)
    hardy.predict(network, image, tmp_path, adapt="eata", source_images=[torch.rand(1, 3, 32, 48)] * 2)
    assert fishers == [3, 2]
