"""Domains without a score: in no mean, in no minimum, in no choice of weights, and always named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hardy
from hardy.commands import evaluate, train
from hardy.engine import protocol
from hardy.engine.evaluate import DomainScores, ScoreTable
from hardy.errors import InputError
from hardy.metrics import Scores
from hardy.recipe import from_values

NAN = float("nan")


def row(domain: str, value: float, group: str = "unseen", images: int = 1) -> DomainScores:
    return DomainScores(domain, group, images, Scores(value, (value,), value))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_a_domain_without_labels_is_in_no_mean_and_no_worst_in_any_order(order):
    rows = (row("d/day", 0.5), row("d/empty", NAN), row("d/fog", 0.3))
    table = ScoreTable((row("d/home", 0.6, "source-val"), *(rows[i] for i in order)), ("a",))
    assert table.worst == 0.3
    assert table.unseen == pytest.approx(0.4)
    assert table.gap == pytest.approx(0.2)
    assert table.unscored == ("d/empty",)


def test_where_nothing_has_a_score_there_is_no_number():
    table = ScoreTable((row("d/empty", NAN), row("d/home", NAN, "source-val")), ("a",), image_level=True)
    assert table.summary() == {}
    assert table.unscored == ("d/empty", "d/home")


def test_the_accuracy_over_all_images_leaves_out_those_of_a_domain_without_labels():
    rows = (row("d/one", 0.5, "source-val", 3), row("d/empty", NAN, "source-val", 9), row("d/two", 1.0, "source-val"))
    assert ScoreTable(rows, ("a",), image_level=True).intra == pytest.approx((3 * 0.5 + 1) / 4)


@pytest.fixture
def town_with(town: Path, tmp_path: Path) -> Callable[..., Path]:
    """``town_with("fog")``: the town with one domain more, a copy of its night whose masks are all 255."""

    def build(name: str) -> Path:
        root = tmp_path / "town"
        shutil.copytree(town, root)
        shutil.copytree(root / "images" / "night", root / "images" / name)
        (root / "masks" / name).mkdir()
        for file in (root / "masks" / "night").iterdir():
            Image.fromarray(np.full((32, 48), 255, np.uint8)).save(root / "masks" / name / file.name)
        return root

    return build


def recipe_of(root: Path, folder: Path, **changes):
    values = {
        "network": {"name": "tiny", "width": 8, "classes": str(root)},
        "data": {"sources": ["folder/day"], "crop": [32, 48], "datasets": {"folder": {"root": str(root)}}},
        "optim": {"steps": 6, "batch": 4, "lr": 0.05},
        "run": {"folder": str(folder), "device": "cpu", "workers": 0},
    }
    for name, more in changes.items():
        values[name] = {**values.get(name, {}), **more}
    return from_values(values)


@pytest.mark.costly
def test_the_domains_that_have_a_score_choose_and_the_others_are_named(town_with, tmp_path, capsys):
    root = town_with("fog")
    both = {"sources": ["folder/day", "folder/fog"], "datasets": {"folder": {"root": str(root)}}}
    folder = train.run(recipe_of(root, tmp_path / "run", data={**both, "check": False}, evaluate={"every": 2}))
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "folder/fog: no held-out image has a labelled pixel" in log
    scores = [float(line.rsplit(" ", 1)[1]) for line in log.splitlines() if "source validation" in line]
    assert len(scores) == 3
    assert min(scores) > 0, "no sentinel stands for a score"
    steps = {r.notes["selected_step"] for r in hardy.records.read(folder / "records.jsonl")}
    assert steps == {2 * (1 + scores.index(max(scores)))}, "the best weights are kept, not the first"
    shown = capsys.readouterr().out
    assert "folder/fog: no score" in shown


def test_where_no_held_out_image_is_labelled_nothing_is_trained(town_with, tmp_path):
    root = town_with("fog")
    alone = recipe_of(root, tmp_path / "run", data={"sources": ["folder/fog"], "check": False})
    with pytest.raises(InputError, match=r"evaluate.select: no held-out image of folder/fog has a labelled pixel"):
        train.run(alone)
    assert not (tmp_path / "run").exists()


def test_a_torn_image_found_at_the_end_costs_neither_network_nor_table(town, tmp_path, capsys):
    root = tmp_path / "town"
    shutil.copytree(town, root)
    shutil.copytree(root / "images" / "night", root / "images" / "fog")
    shutil.copytree(root / "masks" / "night", root / "masks" / "fog")
    recipe = recipe_of(root, tmp_path / "run", data={"unseen": ["folder/fog", "folder/night"], "check": False})
    torn = root / "images" / "fog" / "03.png"
    torn.write_bytes(torn.read_bytes()[:200])
    with pytest.raises(InputError, match=r"not measured on folder/fog: .*03\.png.*hardy evaluate .*run folder/fog"):
        train.run(recipe)
    network = hardy.load(tmp_path / "run")
    assert torch.isfinite(network(torch.rand(1, 3, 32, 48))).all()
    found = {r.target: r.value for r in hardy.records.read(tmp_path / "run" / "records.jsonl") if r.metric == "miou"}
    assert found["folder/night"] == found["worst"] == found["unseen"]
    assert "folder/fog" not in found
    assert "folder/fog: NOT MEASURED" in capsys.readouterr().out


def test_hardy_evaluate_measures_the_domains_that_it_can_read_and_names_the_other(town, tmp_path, capsys):
    root = tmp_path / "town"
    shutil.copytree(town, root)
    torn = root / "images" / "day" / "03.png"
    torn.write_bytes(torn.read_bytes()[:200])
    run = hardy.save(hardy.create("tiny", str(town), width=8), tmp_path / "run")
    options = {"datasets": {"folder": {"root": str(root)}}, "device": "cpu"}
    with pytest.raises(InputError, match=r"not measured on folder/day: .*03\.png"):
        evaluate.run(run, ["folder/day", "folder/night"], size=None, per_class=False, **options)
    assert {r.target for r in hardy.records.read(run / "records.jsonl")} == {"folder/night", "unseen", "worst"}
    with pytest.raises(InputError, match=r"03\.png"):
        hardy.evaluate(hardy.load(run), ["folder/day", "folder/night"], **options)


def test_a_domain_that_cannot_be_read_at_a_validation_leaves_the_choice_to_the_others(town, tmp_path):
    root = tmp_path / "town"
    shutil.copytree(town, root)
    recipe = recipe_of(root, tmp_path / "run", data={"unseen": ["folder/night"], "check": False}, evaluate={"every": 2})
    held = protocol.split(recipe.data, 0).val[0][1]
    for item in held:
        image = Path(item[0])
        image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(InputError, match="not measured on folder/day"):
        train.run(recipe)
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert "train step 6: folder/day does not count in the selection of weights" in log
    assert {r.notes["selected_step"] for r in hardy.records.read(tmp_path / "run" / "records.jsonl")} == {6}


@pytest.mark.costly
def test_a_run_that_stopped_while_it_was_measured_is_measured_again(town, tmp_path, monkeypatch):
    recipe = recipe_of(town, tmp_path / "run", data={"unseen": ["folder/night"]})
    with monkeypatch.context() as patch:
        patch.setattr("hardy.engine.run.Run.record", stop)
        with pytest.raises(KeyboardInterrupt):
            train.run(recipe)
    assert hardy.load(tmp_path / "run").label_space.classes == ("road", "wall", "sky"), "the network is there already"
    train.run(recipe)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "curves.jsonl",
        "network.json",
        "network.safetensors",
        "recipe.yaml",
        "records.jsonl",
        "train.log",
    }


def stop(*args, **keywords):
    raise KeyboardInterrupt
