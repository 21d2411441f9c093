"""`hardy.adapt`, the section ``adapt`` of a recipe, and ``adapt.key=value`` of ``hardy evaluate`` and ``predict``."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from stream_method import SEEN

import hardy
from hardy.cli import main
from hardy.commands import train
from hardy.commands.output.unmeasured import refuse_unmeasured
from hardy.data.decoding import read_image
from hardy.data.transforms import evaluation
from hardy.engine.evaluate import ScoreTable
from hardy.engine.unused import refuse_unused
from hardy.errors import InputError
from hardy.metrics import confusion
from hardy.networks.building.create import create
from hardy.recipe import from_values, read
from hardy.records import read as records_of
from hardy.seed import seeded

METHOD = "stream_method:Learning"
NEVER = {"name": METHOD, "reset": "never"}


@pytest.fixture(autouse=True)
def seen():
    SEEN.clear()
    return SEEN


@pytest.fixture
def network(town):
    with seeded(0, "network"):
        return hardy.create("tiny", classes=str(town), width=8)


@pytest.fixture(scope="module")
def folder(town, tmp_path_factory):
    """A network in a run's folder, without a recipe."""
    place = tmp_path_factory.mktemp("runs") / "x"
    with seeded(0, "network"):
        hardy.save(hardy.create("tiny", classes=str(town), width=8), place)
    return place


def called(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["hardy", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


# ------------------------------------------------------------------------------------------------------ in Python


def test_it_adapts_a_copy_and_forgets(network):
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    live = hardy.adapt(network, METHOD, rate=0.1)
    first, second = live(images), live(images)
    assert not torch.equal(first, second)
    live.reset()
    assert torch.equal(live(images), first)
    assert torch.equal(hardy.adapt(network, METHOD, rate=0.1)(images), first)
    assert not torch.equal(hardy.adapt(network, METHOD, rate=0.1, seed=1)(images), first)
    with torch.inference_mode():
        made = hardy.adapt(network, METHOD, rate=0.1)
    assert torch.equal(made(images), first)
    with pytest.raises(InputError, match="Learning has no option 'rat'; did you mean 'rate'"):
        hardy.adapt(network, METHOD, rat=1)


def test_an_image_level_network_adapts():
    with seeded(0, "network"):
        network = create("classifier", "pacs7", encoder="resnet18")
    live = hardy.adapt(network, METHOD)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert live(images).shape == (2, 7)
    assert live(images[:1]).shape == (1, 7)


@pytest.mark.parametrize("batch", [1, 5])
def test_masks_are_the_classes_that_evaluate_counts(network, town, tmp_path, seen, batch):
    datasets = {"folder": {"root": str(town)}}
    table = hardy.evaluate(network, ["folder/night"], datasets=datasets, batch=batch, device="cpu", adapt=NEVER, seed=3)
    measured = [one.images for one in seen]
    seen.clear()
    files = hardy.predict(network, town / "images/night", tmp_path / "masks", batch=batch, adapt=NEVER, seed=3)
    assert len(measured) == len(seen) == {1: 12, 5: 3}[batch]
    assert all(torch.equal(one.images, other) for one, other in zip(seen, measured, strict=True))
    guess = torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).long()
    truth = torch.from_numpy(
        np.stack([np.asarray(Image.open(town / "masks/night" / file.name)) for file in files])
    ).long()
    counts = confusion(guess, truth, 3).double()
    iou = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    assert table.rows[0].scores.iou == pytest.approx(iou.tolist(), abs=1e-12)
    live = hardy.adapt(network, METHOD, seed=3)
    shown = evaluation()
    images = [shown(read_image(file), np.zeros(()))[0] for file in sorted((town / "images/night").iterdir())]
    by_hand = torch.cat([live(torch.stack(images[at : at + batch])).argmax(1) for at in range(0, 12, batch)])
    assert torch.equal(by_hand, guess)


def test_predict_forgets_after_so_many_images_and_takes_no_window(network, town, tmp_path, seen):
    source = town / "images/night"
    hardy.predict(network, source, tmp_path / "masks", adapt={"name": METHOD, "reset": 5})
    assert [one.step for one in seen] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    with pytest.raises(InputError, match="would learn more than once from an image by window; leave it out"):
        hardy.predict(network, source, tmp_path / "others", adapt=NEVER, window=(32, 32))
    assert not (tmp_path / "others").exists()


# ----------------------------------------------------------------------------------------------------- in a recipe


@pytest.mark.costly
def test_a_recipe_adapts_when_it_measures_and_never_when_it_selects(sections, seen):
    values = sections(adapt=NEVER, evaluate={"every": 4})
    recipe = from_values(values)
    folder = train.run(recipe)
    held_out = 1  # a tenth of twelve
    assert [one.step for one in seen] == list(range(held_out + 12)), "the end's images, each once; no validation's"
    found = records_of(folder / "records.jsonl")
    scores = [record for record in found if record.target != "cost"]
    assert all(record.notes["adapt"] == {**NEVER, "rate": 0.05, "breaks": -1} for record in scores)
    costs = {record.metric for record in found if "adapt" not in record.notes}
    assert costs == {"parameters", "gmacs"}, "of the network as it was trained"
    assert read(folder / "recipe.yaml", trust=["stream_method"]) == recipe


def test_it_is_in_the_digest_only_when_it_is_there(sections):
    plain = from_values(sections())
    assert from_values(sections(), ["adapt=null"]).digest() == plain.digest()
    every = from_values(sections(), ["adapt.name=source"])
    assert every.adapt is not None
    assert every.adapt.reset == "domain"
    never = from_values(sections(), ["adapt=source", "adapt.reset=never"])
    assert len({plain.digest(), every.digest(), never.digest()}) == 3
    assert never.changes(every) == ["adapt.reset was 'domain', now 'never'"]


def test_views_beside_it_are_refused_before_anything_is_trained(sections):
    with pytest.raises(InputError) as refused:
        from_values(sections(adapt=NEVER, evaluate={"flip": True}))
    assert str(refused.value) == (
        "recipe: adapt: stream_method:Learning would learn more than once from an image by flip; leave it out, or do "
        "not adapt"
    )


def test_a_search_has_no_use_for_it(sections):
    recipe = from_values(sections(adapt={"name": "source"}, search={"budget_ms": 1}))
    with pytest.raises(InputError, match=r"^adapt: the section has no effect: a search does not adapt networks"):
        refuse_unused(recipe, "search")


# ------------------------------------------------------------------------------------------------ on the command line


def test_evaluate_adapts_by_words_and_its_records_say_so(folder, town, monkeypatch, capsys, seen):
    words = ("evaluate", folder, "folder/night", "--dataset", f"folder.root={town}", "--device", "cpu")
    assert called(monkeypatch, *words) == 0
    plain = capsys.readouterr().out
    assert not seen
    assert "adapt" not in plain
    assert called(monkeypatch, *words, f"adapt.name={METHOD}", "adapt.reset=never") == 0
    assert len(seen) == 12
    assert f"on folder/night adapt.name={METHOD} adapt.reset=never adapt.rate=0.05" in capsys.readouterr().out
    found = [record for record in records_of(folder / "records.jsonl") if record.metric == "miou"]
    notes = [record.notes.get("adapt") for record in found]
    half = len(notes) // 2
    assert notes == [None] * half + [{**NEVER, "rate": 0.05, "breaks": -1}] * half
    assert [record.notes["domains"] for record in found] == [["folder/night"]] * len(found)
    assert [list(record.cost) for record in found] == [[]] * half + [["adapt_seconds"]] * half
    assert all(record.cost["adapt_seconds"] > 0 for record in found[half:])
    assert called(monkeypatch, "runs", folder.parent) == 0
    rows = capsys.readouterr().out
    assert rows.count("evaluate") == 2
    assert f"evaluate + {METHOD}, reset never" in rows


def test_what_a_guard_does_is_printed_and_recorded(folder, town, tmp_path, monkeypatch, capsys):
    words = (f"adapt.name={METHOD}", "adapt.guard.budget_ms=1e-9", "adapt.guard.sure=0", "--device", "cpu")
    line = "guard: predicted without learning 11 times, by budget; first at image 1: budget\n"
    assert called(monkeypatch, "evaluate", folder, "folder/night", "--dataset", f"folder.root={town}", *words) == 0
    assert line in capsys.readouterr().out
    assert records_of(folder / "records.jsonl")[-1].cost["guard_budget"] == 11
    assert called(monkeypatch, "predict", folder, town / "images/night", tmp_path / "masks", *words) == 0
    assert line in capsys.readouterr().out
    assert called(monkeypatch, "predict", folder, town / "images/night", tmp_path / "other", *words, "--json") == 0
    assert line[:-1] in json.loads(capsys.readouterr().out)["guard"]


def test_predict_adapts_by_words(folder, town, tmp_path, monkeypatch, seen):
    words = ("predict", folder, town / "images/night", tmp_path / "masks", f"adapt.name={METHOD}", "--device", "cpu")
    assert called(monkeypatch, *words) == 0
    assert [one.step for one in seen] == list(range(12))
    direct = hardy.predict(hardy.load(folder), town / "images/night", tmp_path / "direct", adapt=METHOD)
    for file in direct:
        assert file.read_bytes() == (tmp_path / "masks" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", "RUN", "folder/night", "adapt.name=sorce"), "no adaptation 'sorce'; did you mean 'source'"),
        (("evaluate", "RUN", "folder/night", "--flip", "adapt=source"), "would learn more than once from an image by"),
        (("predict", "RUN", "photos", "masks", "optim.lr=1"), "only adapt.key=value can be given here"),
    ],
)
def test_words_that_cannot_be_used_end_in_one_line(folder, words, said, monkeypatch, capsys):
    assert called(monkeypatch, *(folder if word == "RUN" else word for word in words)) == 2
    line = capsys.readouterr().err
    assert line.startswith("hardy: ")
    assert said in line
    assert line.count("\n") == 1


def test_the_hint_for_a_domain_that_is_not_measured_adapts_too(sections):
    recipe = from_values(sections(adapt=NEVER))
    failed = ScoreTable((), (), failed={"folder/night": "torn"})
    with pytest.raises(InputError, match=rf"runs/x folder/night adapt\.name={METHOD} adapt\.reset=never"):
        refuse_unmeasured(failed, "runs/x", recipe.adapt)
