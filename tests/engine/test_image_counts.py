"""Confusion counts of every image of a run, under names without the machine's folders."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hardy
from hardy import counts
from hardy.commands import evaluate, train
from hardy.data.base import names_of
from hardy.data.datasets.corrupted import Corrupted
from hardy.data.datasets.streets import Streets
from hardy.data.sources import domains
from hardy.engine import protocol
from hardy.engine.evaluate import count
from hardy.engine.image_counts import counted
from hardy.errors import InputError
from hardy.recipe import from_values
from hardy.types import Batch


class Files:
    """A dataset as far as names go."""

    def name_of(self, item):
        return str(item[0])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/b/train/1.png", "/a/b/train/x/2.png"], ("1.png", "x/2.png")),
        (["/a/b/train/1.png", "/a/b/test/2.png"], ("train/1.png", "test/2.png")),
        (["../data/1.png"], ("1.png",)),
        ([], ()),
    ],
)
def test_files_are_named_below_the_folder_that_holds_them_all(paths, names):
    assert names_of(Files(), [(Path(path), Path("mask.png")) for path in paths]) == names


def test_what_is_drawn_keeps_its_name():
    streets = Streets(train=1, val=1, test=0)
    assert names_of(streets, streets.index()["sim"]["train"]) == ("sim/0",)


def test_corrupted_files_are_named_below_the_folder_that_holds_them_all(town):
    fog = Corrupted(root=town, of="folder", only=["day"], kinds=["fog"], strengths=[3])
    items = fog.index()["day-fog-3"]["all"]
    assert names_of(fog, items)[:2] == ("00.png (fog 3)", "01.png (fog 3)")


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_counts_of_each_image_by_hand(batch):
    """A prediction of 2, which has no counterpart among the two classes, is a miss."""
    answers = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1], [2, 2, 0, 0]])
    labels = torch.tensor([[0, 1, 1, 255], [0, 0, 1, 1], [0, 1, 1, 0]])
    images = torch.nn.functional.one_hot(answers, 3).movedim(2, 1).float()[:, :, None]  # (3, 3, 1, 4)
    onto = np.full(256, 255, np.uint8)
    onto[[0, 1]] = [0, 1]
    batches = [
        Batch(images[i : i + batch], labels[i : i + batch, None], torch.zeros(len(labels[i : i + batch])).long())
        for i in range(0, 3, batch)
    ]
    each: list[torch.Tensor] = []
    total, measured = count(lambda given: given, batches, 2, onto=onto, each=each)
    plain, _ = count(lambda given: given, batches, 2, onto=onto)
    assert measured == 3
    assert torch.equal(total, plain)
    found = counted(Files(), [(Path(f"/d/{n}.png"), None) for n in "abc"], each, ("k", "l"), "unseen")
    assert found.names == ("a.png", "b.png", "c.png")
    assert found.matrices.tolist() == [[[1, 0], [0, 1]], [[0, 2], [0, 2]], [[1, 0], [1, 0]]]
    assert found.unmatched.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert (found.split, found.classes) == ("unseen", ("k", "l"))


def test_pictures_of_one_class_are_counted_each():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    each: list[torch.Tensor] = []
    count(
        lambda given: logits, [Batch(torch.rand(2, 3, 4, 4), torch.tensor([0, 0]), torch.zeros(2).long())], 2, each=each
    )
    assert [one[:2, :2].tolist() for one in each] == [[[1, 0], [0, 0]], [[0, 1], [0, 0]]]


# ------------------------------------------------------------------------------------------------------------- a run


@pytest.fixture
def recipe(town, tmp_path):
    def build(**choice):
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
                "optim": {"steps": 8, "batch": 4, "lr": 0.05},
                "evaluate": choice,
                "run": {"folder": str(tmp_path / "run"), "device": "cpu", "workers": 0, "threads": 1},
            }
        )

    return build


def scores_of(folder, target):
    return {r.metric: r.value for r in hardy.records.read(folder / "records.jsonl") if r.target == target}


def iou_of(one):
    """The IoU of every class from the counts of all images."""
    total = one.matrices.sum(axis=0)
    hits = np.diagonal(total)
    return dict(zip(one.classes, hits / (total.sum(0) + total.sum(1) - hits), strict=True))


def test_a_run_keeps_counts_from_which_its_records_follow(recipe, tmp_path, town):
    asked = recipe(keep_counts=True, batch=3)
    folder = train.run(asked, show=False)
    found = counts.read(folder)
    assert {domain: one.split for domain, one in found.items()} == {
        "folder/day": "source-val",
        "folder/night": "unseen",
    }
    held = protocol.split(asked.data, 0).val[0][1]
    assert found["folder/day"].names == tuple(Path(item[0]).name for item in held)
    for domain, one in found.items():
        scores = scores_of(folder, domain)
        assert {name: scores[f"iou/{name}"] for name in one.classes} == pytest.approx(iou_of(one), abs=1e-12)
    assert str(town) not in (folder / counts.FILE).read_bytes().decode("latin-1")
    assert not (train.run(recipe(keep_counts=True, batch=3), show=False) / "checkpoint.safetensors").exists()


def test_without_being_asked_a_run_keeps_none(recipe):
    folder = train.run(recipe(), show=False)
    assert not (folder / counts.FILE).exists()
    with pytest.raises(InputError, match="keep_counts"):
        train.run(recipe(keep_counts=True), show=False)  # finished without them: nothing would write them


@pytest.mark.costly
def test_hardy_evaluate_keeps_counts_in_the_named_folder(recipe, tmp_path, town):
    folder = train.run(recipe(), show=False)
    options = {"datasets": {"folder": {"root": str(town)}}, "device": "cpu"}
    evaluate.run(folder, ["folder/night"], size=None, per_class=False, counts=tmp_path / "counts", **options)
    found = counts.read(tmp_path / "counts")["folder/night"]
    table = hardy.evaluate(hardy.load(folder), ["folder/night"], keep_counts=True, **options)
    assert np.array_equal(table.counts["folder/night"].matrices, found.matrices)
    items = domains(["folder/night"], root=tmp_path, options=options["datasets"])[0].items()
    assert len(found.names) == len(items) == table.rows[0].images
    assert not hardy.evaluate(hardy.load(folder), ["folder/night"], **options).counts
