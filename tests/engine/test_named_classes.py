"""The IoU of named classes beside the mIoU, and weights that are chosen by it."""

import json

import pytest
import torch
from PIL import Image

import hardy
from hardy.commands import evaluate, runs, train
from hardy.engine.evaluate import build_table
from hardy.engine.unused import refuse_unused
from hardy.errors import InputError
from hardy.recipe import Recipe, Search, from_values


def counts_of(hits, misses, false):
    """(3, 3) counts of two classes of which the second, of 100 pixels or so, is the one that is named."""
    return torch.tensor([[50, false, 0], [misses, hits, 0], [0, 0, 0]])


ROWS = [
    ("r/a", "source-val", counts_of(6, 2, 4), 1),  # 6 / 12
    ("r/b", "source-val", counts_of(2, 6, 0), 1),  # 2 / 8
    ("r/c", "unseen", counts_of(4, 1, 0), 1),  # 4 / 5
    ("r/d", "unseen", counts_of(1, 4, 0), 1),  # 1 / 5
    ("r/e", "unseen", counts_of(0, 0, 0), 1),  # no such pixel
]


def test_means_of_a_class_by_hand():
    made = build_table(ROWS, ("background", "vessel"), named=("vessel",))
    assert made.summary("vessel") == pytest.approx({"intra": 0.375, "unseen": 0.5, "worst": 0.2, "gap": -0.125})
    found = {(target, metric): value for target, metric, value in made.values()}
    assert found["worst", "iou/vessel"] == pytest.approx(0.2)
    assert found["r/c", "iou/vessel"] == pytest.approx(0.8)
    assert found["worst", "miou"] == made.worst != found["worst", "iou/vessel"]
    assert made.intra_of("vessel") == pytest.approx(0.375)
    assert len(made.values()) == len({(target, metric) for target, metric, _ in made.values()})


def test_without_named_classes_the_records_are_what_they_were():
    made = build_table(ROWS, ("background", "vessel"))
    assert [name for name in made.values() if name[0] in ("intra", "unseen", "worst", "gap")] == [
        (name, "miou", value) for name, value in made.summary().items()
    ]


@pytest.fixture
def recipe(town, tmp_path):
    def build(folder="run", **choice):
        data = {
            "sources": ["folder/day"],
            "unseen": ["folder/night"],
            "crop": [32, 48],
            "holdout": 0.4,
            "datasets": {"folder": {"root": str(town)}},
        }
        return from_values(
            {
                "network": {"name": "tiny", "width": 8, "classes": str(town)},
                "data": data,
                "optim": {"steps": 12, "batch": 4, "lr": 0.05},
                "evaluate": choice,
                "run": {"folder": str(tmp_path / folder), "device": "cpu", "workers": 0, "threads": 1},
            }
        )

    return build


@pytest.mark.costly
def test_a_run_shows_and_records_the_class_beside_the_miou(recipe, capsys, tmp_path):
    folder = train.run(recipe(classes=["wall"]))
    shown = capsys.readouterr().out
    assert "wall IoU %" in shown
    found = {(r.target, r.metric): r.value for r in hardy.records.read(folder / "records.jsonl")}
    assert found["unseen", "iou/wall"] == found["folder/night", "iou/wall"] == found["worst", "iou/wall"]
    assert found["intra", "iou/wall"] == found["folder/day", "iou/wall"]
    runs.run(tmp_path, metric="iou/wall")
    line = next(line for line in capsys.readouterr().out.splitlines() if "run" in line and "train" in line)
    assert f"{100 * found['unseen', 'iou/wall']:.1f}" in line


@pytest.mark.costly
def test_hardy_evaluate_shows_it_too(recipe, capsys, town):
    folder = train.run(recipe(), show=False)
    options = {"datasets": {"folder": {"root": str(town)}}, "device": "cpu"}
    evaluate.run(folder, ["folder/night"], size=None, per_class=False, classes=("sky",), **options)
    assert "sky IoU %" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"evaluate\.classes: .* has no class 'skies'; did you mean 'sky'"):
        hardy.evaluate(hardy.load(folder), ["folder/night"], classes=["skies"], **options)


def test_weights_are_chosen_by_the_class(recipe):
    folder = train.run(recipe(every=3, select_class="wall", classes=["wall"]), show=False)
    log = (folder / "train.log").read_text(encoding="utf-8")
    scores = [float(line.rsplit(" ", 1)[1]) for line in log.splitlines() if "source validation" in line]
    found = {(r.target, r.metric): r for r in hardy.records.read(folder / "records.jsonl")}
    assert len(scores) == 4
    assert found["intra", "iou/wall"].value == pytest.approx(max(scores), abs=1e-4)
    assert found["intra", "iou/wall"].notes["selected_step"] == 3 * (1 + scores.index(max(scores)))
    assert abs(found["intra", "miou"].value - max(scores)) > 1e-3


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"select_class": "walls"}, "evaluate.select_class: .* has no class 'walls'; did you mean 'wall'"),
        ({"classes": ["roof"]}, "evaluate.classes: .* has no class 'roof'"),
        ({"select_class": "wall", "select": "last"}, "evaluate.select_class: wall has no effect"),
    ],
)
def test_a_class_that_is_not_there_is_refused_before_anything_is_trained(recipe, tmp_path, choice, message):
    with pytest.raises(InputError, match=message):
        train.run(recipe(**choice), show=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("choice", [{"classes": ["wall"]}, {"keep_counts": True}])
def test_a_search_refuses_what_it_would_not_do(recipe, choice):
    with pytest.raises(InputError, match=f"evaluate.{next(iter(choice))}: .* has no effect: a search measures no"):
        refuse_unused(recipe(**choice).model_copy(update={"search": Search(budget_ms=1)}), "search")


def test_pictures_have_no_iou(tmp_path):
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        (tmp_path / "pacs" / "kfold" / domain / "dog").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pacs" / "kfold" / domain / "dog" / "1.png")
    made = hardy.create("classifier", "pacs7", encoder="mobilenetv2_035")
    with pytest.raises(InputError, match="no IoU where there is one class per image"):
        hardy.evaluate(made, ["pacs/photo"], root=tmp_path, classes=["dog"])


def test_keys_that_came_later_do_not_rename_older_recipes(recipe):
    plain, named = recipe(), recipe(classes=["wall"])
    older = json.loads(json.dumps(plain.model_dump(mode="json")))
    for key in ("classes", "select_class", "keep_counts"):
        older["evaluate"].pop(key)
    assert Recipe.of(older, (), "older").digest() == plain.digest()
    assert plain.digest() != named.digest()
    assert '"classes": []' not in json.dumps(plain._named()["evaluate"])
