"""The networks of a report, their costs and the advice, from records; each number by hand."""

import html
import json
import shlex

import pytest
from report_runs import CLASSES, SEEN, iou, matrices, write_run, write_story

from hardy import records
from hardy.errors import InputError
from hardy.records import Record
from hardy.report.advice import advise, usual_budget
from hardy.report.intervals import confusion, interval
from hardy.report.page.subject import Subject
from hardy.report.prices import price
from hardy.report.runs import networks
from hardy.sections import NetworkChoice


@pytest.fixture
def story(tmp_path):
    return write_story(tmp_path / "runs")


def made(*paths):
    found = networks(list(paths), torn=[])
    price(found)
    return {one.name: one for one in found}


def test_what_learned_from_a_teacher_is_beside_it(tmp_path):
    write_run(tmp_path / "dense", 0.9)
    taught = {"network": "tiny", "teacher": "elsewhere/dense"}  # both moved since
    write_run(tmp_path / "student", 0.8, notes=taught)
    write_run(tmp_path / "tuned", 0.8, notes={"network": "elsewhere/dense", "tuner": "frozen"})
    write_run(tmp_path / "two", 0.8, notes={**taught, "teacher": ["elsewhere/dense", "elsewhere/student"]})
    found = made(tmp_path)
    steps = {name: (one.step, one.parent.name if one.parent else None) for name, one in found.items()}
    assert steps == {
        "dense": ("train", None),
        "student": ("distil", "dense"),
        "tuned": ("tune", "dense"),
        "two": ("distil", None),
    }


def test_a_run_without_a_folder_in_its_path_is_no_architecture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "tiny", 0.9, notes={"network": NetworkChoice(name="tiny").noted})
    write_run(tmp_path / "other", 0.9, notes={"network": "tiny"})
    write_run(tmp_path / "tuned", 0.8, notes={"network": NetworkChoice(run="tiny").noted, "tuner": "frozen"})
    write_run(tmp_path / "student", 0.8, notes={"network": "tiny", "teacher": "tiny"})
    parents = {name: one.parent.name if one.parent else None for name, one in made(tmp_path).items()}
    assert parents == {"tiny": None, "other": None, "tuned": "tiny", "student": "tiny"}


def test_names_steps_parents_and_scores(story):
    found = made(story)
    assert {name: one.step for name, one in found.items()} == {
        "beaten": "prune",
        "dense": "train",
        "half": "prune",
        "quarter": "prune",
    }
    dense = found["dense"]
    assert [name for name, one in found.items() if one.parent is dense] == ["beaten", "half", "quarter"]
    assert (dense.parent, dense.classes, dense.metric_words) == (None, list(CLASSES), "mIoU")
    assert dense.group(seen=True) == list(SEEN)
    assert dense.score("streets/fog") == pytest.approx(iou(matrices(0.7, seed=2).sum(0)).mean())
    assert dense.worst == (dense.score("streets/fog"), "streets/fog")


def test_milliseconds_are_the_ratio_in_turns_times_that_of_the_network_before(story):
    assert {name: one.milliseconds for name, one in made(story).items()} == pytest.approx(
        {"beaten": 8.0, "dense": 10.0, "half": 6.0, "quarter": 3.0}
    )
    line = ("r", "bench", (), "onnxruntime", 0, "milliseconds_p50", 20.0, {}, {}, {"batch": 1})
    records.append(story / "dense" / "records.jsonl", [Record(*line), Record(*line[:6], 80.0, {}, {}, {"batch": 4})])
    found = made(story)
    assert {name: one.milliseconds for name, one in found.items()} == pytest.approx(
        {"beaten": 16.0, "dense": 20.0, "half": 12.0, "quarter": 6.0}
    )
    assert (found["dense"].parameters, found["half"].parameters) == (1e6, 6e5)


def bench(folder, metric, value, **notes):
    line = Record("r", "bench", (), "onnxruntime", 0, metric, value, {}, {}, {"batch": 1, **notes})
    records.append(folder / "records.jsonl", [line])


def against(folder, other, ratio, base):
    for metric, value in {"milliseconds_p50": 99.0, "ratio": ratio, "milliseconds_p50_against": base}.items():
        bench(folder, metric, value, against=str(other))


def test_a_ratio_in_turns_counts_more_than_times_apart(story):
    bench(story / "half", "milliseconds_p50", 55.0)  # on a busy machine
    found = made(story)
    assert (found["half"].milliseconds, found["half"].ratio) == (6.0, 0.6)
    assert {name: one.reference.name for name, one in found.items()} == dict.fromkeys(found, "dense")
    assert found["dense"].ratio == 1.0
    assert all(one.in_turns(found["dense"]) for one in found.values())
    # another network beside half, whose own ratio is to dense: 1.5 x 0.6 x 10 ms
    write_run(story / "other", 0.5)
    against(story / "other", "elsewhere/half", 1.5, 70.0)  # both folders were moved since
    other = made(story)["other"]
    assert (other.milliseconds, other.ratio) == pytest.approx((9.0, 0.9))
    assert other.reference.name == "dense"
    against(story / "quarter", story / "dense", 0.2, 50.0)  # newer than what pruning measured, in another call
    found = made(story)
    assert found["dense"].milliseconds == 10.0  # the median of 10, 10 and 50
    assert (found["quarter"].milliseconds, found["half"].milliseconds) == pytest.approx((2.0, 6.0))


def test_the_median_ratio_of_the_pairs_counts_more_than_the_ratio_of_the_medians(story):
    line = Record("r", "prune", (), "cost", 0, "ratio_onnxruntime", 0.5)
    records.append(story / "half" / "records.jsonl", [line])
    found = made(story)
    assert (found["half"].milliseconds, found["quarter"].milliseconds) == pytest.approx((5.0, 3.0))


def test_two_networks_each_against_the_other(tmp_path):
    for name in ("one", "two"):
        write_run(tmp_path / name, 0.5)
    against(tmp_path / "one", tmp_path / "two", 0.5, 8.0)
    against(tmp_path / "two", tmp_path / "one", 2.0, 5.0)
    found = made(tmp_path)
    assert (found["one"].milliseconds, found["two"].milliseconds) == (49.5, 99.0)
    assert found["one"].in_turns(found["two"])


def test_a_network_that_was_timed_alone_has_no_reference(story):
    write_run(story / "alone", 0.95)
    bench(story / "alone", "milliseconds_p50", 12.0)
    bench(story / "alone", "ratio", 0.1, against=str(story / "alone"))  # itself
    against(story / "beaten", "runs/left-out", 0.1, 9.0)  # a network that is not in the report
    found = made(story)
    alone, dense = found["alone"], found["dense"]
    assert (alone.milliseconds, alone.reference, alone.ratio) == (12.0, None, None)
    assert found["beaten"].milliseconds == 8.0
    subject = Subject(list(found.values()), "onnxruntime")
    assert [name for name, one in found.items() if subject.apart(one)] == ["alone"]
    assert subject.reference is dense
    said = advise(subject.networks, "unseen domains")
    assert said[-1].reason.endswith(" points.")
    assert "; dense takes 10 ms, timed separately, and would lose " in said[-1].reason
    assert "timed separately" in said[-2].reason
    assert "timed separately" not in said[0].reason
    assert "Timed separately, when the load of the machine may have been different: alone. " in subject.how_timed()
    assert f"--against {html.escape(shlex.quote(str(story / 'dense')))}</code>" in subject.how_timed()
    both = Subject([alone, made(story)["alone"]], "onnxruntime")
    assert both.how_timed().startswith("Each network was timed separately")
    assert Subject([alone], "onnxruntime").how_timed() == ""


def test_milliseconds_of_other_sizes_are_not_compared(story):
    def timed(name, milliseconds, *size):
        bench(story / name, "milliseconds_p50", milliseconds, size=size, threads=1, device="cpu")

    write_run(story / "other", 0.5)
    timed("dense", 20.0, 512, 1024)
    timed("other", 1.0, 96, 192)  # a smaller image, not a faster network
    found = {name: one.milliseconds for name, one in made(story).items()}
    assert found.pop("other") is None
    assert found == pytest.approx({"beaten": 16.0, "dense": 20.0, "half": 12.0, "quarter": 6.0})
    timed("dense", 2.0, 96, 192)
    found = {name: one.milliseconds for name, one in made(story).items()}
    assert found == pytest.approx({"beaten": 1.6, "dense": 2.0, "half": 1.2, "quarter": 0.6, "other": 1.0})


def test_a_network_measured_in_the_classes_of_other_data_is_still_reported(story):
    before = made(story)["dense"]
    notes = {"domains": ["camvid/0001TP"]}
    rows = {("camvid/0001TP", "miou"): 0.9, ("camvid/0001TP", "iou/pavement"): 0.9, ("unseen", "miou"): 0.9}
    lines = [Record("r", "evaluate", SEEN, target, 0, metric, v, {}, {}, notes) for (target, metric), v in rows.items()]
    records.append(story / "dense" / "records.jsonl", lines)
    dense = made(story)["dense"]
    assert (dense.domains, dense.classes, dense.mean()) == (before.domains, before.classes, before.mean())


def test_the_advice_names_the_front_and_a_beaten_network_is_in_none(story):
    found = list(made(story).values())
    said = advise(found, "unseen domains")
    assert [(one.name, one.milliseconds) for one in said] == [("quarter", 3.0), ("half", 6.0), ("dense", 10.0)]
    half, dense = (next(one for one in found if one.name == name) for name in ("half", "dense"))
    gain = 100 * (dense.mean() - half.mean())
    assert said[1].reason.startswith(f"{100 * half.mean():.1f} % mIoU over unseen domains at 6 ms (")
    assert said[1].reason.endswith(f"; dense would gain {gain:.1f} points and takes 1.67 of its time (10 ms).")
    assert usual_budget(found) == 10.0  # half is more than a point below
    assert [one.name for one in Subject(found, "eager").front] == ["quarter", "half", "dense"]


def test_adapted_networks_and_peers_are_networks_of_their_own(story):
    for notes, stage in (
        ({"adapt": {"name": "tent", "reset": "domain"}}, "evaluate"),
        ({"peer": "second"}, "train/second"),
    ):
        line = Record("r", stage, SEEN, "streets/night", 0, "miou", 0.5, {}, {}, notes)
        other = Record("r", stage, SEEN, "streets/night", 0, "iou/road", 0.5, {}, {}, notes)
        more = [Record("r", stage, SEEN, "streets/night", 0, f"iou/{name}", 0.5, {}, {}, notes) for name in CLASSES]
        records.append(story / "dense" / "records.jsonl", [line, other, *more])
    found = made(story)
    assert {"dense + tent", "dense / second"} < set(found)
    adapted = found["dense + tent"]
    assert (adapted.step, adapted.parent, adapted.milliseconds) == ("adapt", found["dense"], None)
    assert adapted.headline == 0.5
    assert found["dense"].score("streets/night") != 0.5


def test_cells_of_a_study_that_differ_in_their_seed_are_one_network(tmp_path):
    lines = []
    for seed, value in ((0, 0.4), (1, 0.6)):
        (tmp_path / "study" / "cells" / f"dense-{seed}").mkdir(parents=True)
        notes = {"cell": f"dense-{seed}", "of": "dense", "axes": {"seed": str(seed), "width": "wide"}}
        lines.append(Record("r", "train", SEEN, "streets/night", seed, "miou", value, {}, {}, notes))
    records.append(tmp_path / "study" / "records.jsonl", lines)
    records.append(tmp_path / "study" / "cells" / "dense-0" / "records.jsonl", lines[:1])  # is in the study's own
    (one,) = networks([tmp_path], torn=[])
    assert (one.name, len(one.runs), one.score("streets/night")) == ("dense wide", 2, 0.5)
    around = interval(one, "streets/night")
    assert (around.low, around.high, around.of) == (0.4, 0.6, "2 seeds")


def test_intervals_hold_the_score_and_shrink_with_more_images(story, tmp_path):
    dense = made(story)["dense"]
    around = interval(dense, "streets/night")
    assert around.of == "6 images"
    assert around.low < dense.score("streets/night") < around.high
    names, pixels = confusion(dense, ["streets/night", "streets/fog"])
    assert names == CLASSES
    assert (pixels == matrices(0.8, seed=1).sum(0) + matrices(0.7, seed=2).sum(0)).all()
    bare = write_run(tmp_path / "bare", 0.8, kept=False)
    assert interval(made(bare)["bare"], "streets/night") is None
    assert confusion(made(bare)["bare"], ["streets/night"]) is None


def test_a_last_line_that_is_torn_is_named_and_left_out(story):
    file, torn = story / "half" / "records.jsonl", []
    before = len(records.read(file))
    with file.open("a") as end:
        end.write('{"recipe": "r", "stage": "tra')
    assert len(networks([story], torn=torn)) == 4
    assert torn == [f"{file}:{before + 1}: the last line is incomplete and was left out"]
    with file.open("a") as end:
        end.write("\n" + json.dumps({"recipe": "r"}) + "\n")
    with pytest.raises(InputError, match=f"records.jsonl:{before + 1}: not a record"):  # no crash leaves this
        networks([story], torn=[])


def test_what_cannot_be_reported_is_one_line(story, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"there is no records.jsonl at or below it; hardy train writes one"):
            networks([path], torn=[])
    line = Record("r", "bench", (), "eager", 0, "milliseconds_p50", 20.0)
    records.append(tmp_path / "timed" / "records.jsonl", [line])
    with pytest.raises(InputError, match="the records have no score of a domain; hardy evaluate measures one"):
        networks([tmp_path / "timed"], torn=[])
    other = write_run(tmp_path / "other", 0.8, classes=("road", "sky", "lake"))
    with pytest.raises(
        InputError, match=r"has 4 classes of pixels, .*other has 3 classes of pixels \(.*lake.*only in one"
    ):
        networks([story, other], torn=[])
