"""The comparison of a study: from its file, its records and its counts to the table."""

from collections.abc import Mapping

import numpy as np
import pytest
import yaml

from hardy.commands.output.comparison import Compared, refuse
from hardy.counts import Counts
from hardy.errors import InputError
from hardy.records import Record
from hardy.report.pivot import coordinates
from hardy.studies.study import read

STUDY = {
    "stages": {
        "dense": {"verb": "train", "recipe": "dense.yaml"},
        "pruned": {"verb": "prune", "recipe": "pruned.yaml", "after": "dense"},
    },
    "grid": {
        "seed": {"key": "run.seed", "values": [0, 1]},
        "method": {"stages": "pruned", "key": "prune.criterion", "values": ["ior", "l2"]},
    },
    "comparison": {"control": "dense", "blocks": {"drive/a": 2}},
}
CLASSES = ("road", "vessel")
CELLS = {
    "dense": [coordinates("dense", {"seed": seed}) for seed in "01"],
    "ior": [coordinates("pruned", {"seed": seed, "method": "ior"}) for seed in "01"],
    "l2": [coordinates("pruned", {"seed": seed, "method": "l2"}) for seed in "01"],
}
PLACES = [where for cells in CELLS.values() for where in cells]
NAME = {where: ",".join(text for _, text in where) for where in PLACES}
RIGHT = {"dense": 6, "ior": 7, "l2": 6}
"""Pixels of ten that an arm has right; with seed 1 one more."""


def study(tmp_path, *overrides):
    (tmp_path / "bed.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return read(tmp_path / "bed.yaml", overrides)[0]


def right(where):
    labels = dict(where)
    return RIGHT[labels.get("method", "dense")] + int(labels["seed"])


def counts(where, image_level=False) -> Mapping[str, Counts]:
    """Four images a domain of ten pixels each (or one): two domains unseen, one of the sources."""
    matrices = np.zeros((4, 2, 2), np.int64)
    matrices[:, 0, 0], matrices[:, 1, 0] = right(where), 10 - right(where)
    names = tuple(f"f{place}" for place in range(4))
    splits = {"drive/a": "unseen", "photo/b": "unseen", "home/c": "source-val"}
    return {name: Counts(names, matrices, CLASSES, split) for name, split in splits.items()}


def records(metric="pixel_accuracy"):
    found = []
    for where in PLACES:
        labels = {axis: text for axis, text in where if axis != "stage"}
        notes = {"of": dict(where)["stage"], "axes": labels, "cell": NAME[where]}
        stage = "train" if notes["of"] == "dense" else "prune"
        cost = {"train_seconds": 50.0, "train_steps": 100} if stage == "train" else {"score_seconds": 10.0}
        score = right(where) / 10
        headline = [(name, "accuracy", score) for name in ("intra", "unseen", "worst")]
        vessel = [(name, "iou/vessel", 0.0) for name in ("drive/a", "photo/b", "home/c")]
        after = [("cost", "gmacs_before", 2.0), ("cost", "gmacs_after", 1.0)] if stage == "prune" else []
        found += [
            Record("0", stage, ("home/c",), target, int(labels["seed"]), name, value, cost, notes=notes)
            for target, name, value in [*headline, *vessel, *after]
        ]
    return found


def compared(asked, kept=None, found=None) -> Compared:
    cells = {NAME[where]: counts(where) for where in PLACES} if kept is None else kept
    return Compared(asked, "bed", PLACES, found or records(), lambda cell: cells.get(cell, {}))


def test_a_table_by_hand(tmp_path):
    """IoR has one pixel of ten more in every image of both seeds, and so in every resample; L2 has as many."""
    (one,) = compared(study(tmp_path, "comparison.beside=iou/vessel")).tables
    assert one.title == "bed: accuracy, against dense"
    assert one.table.rows == (
        ("dense", "65.0 ± 7.1", "65.0 ± 7.1", "65.0 ± 7.1", "0.0 ± 0.0", "control", "", "", "", "2", "–", "100"),
        (
            "pruned ior",
            "75.0 ± 7.1",
            "75.0 ± 7.1",
            "75.0 ± 7.1",
            "0.0 ± 0.0",
            "+10.0 [+10.0, +10.0] ≠",
            "2/2",
            "0.5, illustration",
            "ms?",
            "1",
            "–",
            "20",
        ),
        (
            "pruned l2",
            "65.0 ± 7.1",
            "65.0 ± 7.1",
            "65.0 ± 7.1",
            "0.0 ± 0.0",
            "+0.0 [+0.0, +0.0] ≠",
            "0/2, 2 equal",
            "1, illustration",
            "ms?",
            "1",
            "–",
            "20",
        ),
    )
    assert one.table.columns[4] == "unseen iou/vessel %"
    notes = "\n".join(one.notes)
    assert "(drive/a: 2 blocks of 2, photo/b: 4); the seeds are as they are" in notes
    assert "plain steps: seconds of the arm's own stages, in training steps of dense (0.5 s); ≥: some" in notes
    text = "\n".join(compared(study(tmp_path)).markdown())
    assert "| pruned ior | 75.0 ± 7.1 |" in text
    assert "- no ms recorded: dense, pruned ior, pruned l2" in text


@pytest.mark.parametrize("value", ["intra", "worst"])
def test_other_scores_can_be_compared(tmp_path, value):
    (one,) = compared(study(tmp_path, f"comparison.value={value}")).tables
    assert one.table.rows[1][4] == "+10.0 [+10.0, +10.0] ≠"
    assert one.notes[0].startswith(f"difference in points: {value}, mean over pairs with the same seed, less dense;")
    assert any(("home/c" in note) == (value == "intra") for note in one.notes if note.startswith("[ ]"))


def test_the_score_of_one_class_can_be_compared(tmp_path):
    (one,) = compared(study(tmp_path, "comparison.metric=iou/vessel")).tables
    assert one.title == "bed: iou/vessel, against dense"
    assert one.table.rows[1][4] == "+0.0 [+0.0, +0.0] ≠"


def test_an_axis_may_have_a_table_for_each_label(tmp_path):
    first, second = compared(study(tmp_path, "comparison.by=method")).tables
    assert (first.title, second.title) == (
        "bed: accuracy, method ior, against dense",
        "bed: accuracy, method l2, against dense",
    )
    assert [row[0] for row in first.table.rows] == ["dense", "pruned"]


def test_without_counts_there_is_no_interval_and_the_note_says_so(tmp_path):
    (one,) = compared(study(tmp_path), {}).tables
    assert one.table.rows[1][4] == "+10.0 ≠"
    said = "no interval, because no counts of unseen images are kept; evaluate.keep_counts: true keeps them"
    assert f"{said}: pruned ior, pruned l2" in one.notes


def test_counts_of_other_networks_are_not_believed(tmp_path):
    kept = {NAME[where]: counts(where) for where in PLACES}
    kept[NAME[CELLS["ior"][0]]] = counts(CELLS["dense"][0])
    (one,) = compared(study(tmp_path), kept).tables
    assert one.table.rows[1][4] == "+10.0 ≠"
    said = "the counts give a difference of 0.05, the records 0.1; measure the runs again: pruned ior"
    assert f"no interval, because {said}" in one.notes


def test_nothing_measured_is_a_table_of_dashes(tmp_path):
    asked = study(tmp_path)
    (one,) = Compared(asked, "bed", PLACES, [], lambda cell: {}).tables
    assert one.table.rows[1] == ("pruned ior", *"––––––", "GMACs?, ms?", "–", "–", "–")
    assert "no pair with dense is measured: pruned ior, pruned l2" in one.notes
    assert Compared(asked, "bed", CELLS["ior"], [], lambda cell: {}).tables == [], "the control is not among the cells"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("control=pruned io", "comparison.control: there is no arm 'pruned io'; did you mean 'pruned ior'?"),
        ("pairs=[seed, method]", "comparison.pairs: the cells of 'dense' do not have the axis 'method'"),
        ("blocks={drve: 20}", "comparison.blocks: the study does not read 'drve'; did you mean 'drive'?"),
        ("blocks={drive/b: 20}", "comparison.blocks: the study does not read 'drive/b'; did you mean 'drive/a'?"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, override, said):
    asked = study(tmp_path, f"comparison.{override}")
    with pytest.raises(InputError) as refused:
        refuse(asked, PLACES, ["drive/a", "photo", "home/*"], "bed.yaml")
    assert str(refused.value).startswith(f"bed.yaml: {said}")


def test_of_a_data_set_read_whole_any_domain_may_have_blocks(tmp_path):
    refuse(study(tmp_path, "comparison.blocks={photo/b: 2, home/x: 3}"), PLACES, ["photo", "home/*"], "bed.yaml")
