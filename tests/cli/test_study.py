"""``hardy study`` as a user has it: a study of small networks on Ray, resumed, with a failure in it."""

import json
import signal
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import yaml

from hardy import records
from hardy.errors import InputError
from hardy.studies.cluster import Job, Share, StoppedStudy, cluster, run, share, slots
from hardy.studies.order import Order

RECIPE = {
    "network": {"name": "tiny", "width": 16, "classes": "cityscapes19"},
    "data": {
        "sources": ["streets/sim"],
        "unseen": ["streets/night"],
        "unseen_splits": ["test"],
        "crop": [32, 32],
        "datasets": {"streets": {"size": [32, 48], "train": 4, "val": 1, "test": 1}},
        "check": False,
    },
    "optim": {"steps": 1, "batch": 2},
    "evaluate": {"select": "last"},
    "run": {"workers": 0, "device": "cpu"},
}
GOOD, BAD = "pruned,criterion=random,data=good", "dense,data=bad"


@pytest.fixture(scope="session")
def ray() -> Iterator[object]:
    """Ray on this machine with two cores, one for all tests."""
    pytest.importorskip("ray")
    with cluster(None, 2) as started:
        yield started


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four cells, of which one must fail and one cannot start."""
    folder = tmp_path_factory.mktemp("study")
    pruned = {**RECIPE, "prune": {"schedule": {"name": "one_shot"}, "ratio": 0.5}}
    (folder / "dense.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "pruned.yaml").write_text(yaml.safe_dump(pruned))
    values = {
        "study": {"folder": str(folder / "out"), "gpus": 0.5},
        "stages": {
            "dense": {"verb": "train", "recipe": "dense.yaml"},
            "pruned": {"verb": "prune", "recipe": "pruned.yaml", "after": "dense"},
        },
        "grid": {
            "data": {"stages": "dense", "key": "data.unseen_splits", "values": {"good": ["test"], "bad": ["tset"]}},
            "criterion": {"stages": "pruned", "key": "prune.criterion", "values": ["random"]},
        },
        "table": {"rows": ["criterion"], "columns": ["data"]},
        "comparison": {"control": "dense", "pairs": "data"},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    return folder / "small.yaml"


def test_the_json_of_its_board_is_one_document(call, study):
    said = call("--json", "study", study, "--dry-run")
    assert (said.code, said.err) == (0, "")
    report = json.loads(said.out)
    cells = {"dense,data=good", BAD, GOOD, "pruned,criterion=random,data=bad"}
    assert {*report["lines"][:4]} == {f"waiting  {name}" for name in cells}
    assert report["lines"][-1].endswith("4 cells: 4 waiting")
    (table,) = [one for one in report["tables"] if one["title"] == "small: mIoU or accuracy %, unseen"]
    assert {*table["columns"]} >= {"stage", "criterion", "good", "bad"}


@pytest.mark.costly
def test_a_study_runs_keeps_failures_apart_and_runs_again_only_what_is_not_done(ray, call, study):
    out = study.parent / "out"
    said = call("study", study, "--jobs", "2")
    assert said.code == 1, said
    assert f"/4 failed: {BAD}: data.unseen_splits: streets/night has no split 'tset'" in said.out
    assert "skipped: pruned,criterion=random,data=bad: the cell that it continues from failed" in said.out
    assert "4 cells: 2 done, 1 failed, 1 skipped" in said.out
    (failure,) = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert (failure["cell"], failure["code"]) == (BAD, 2)
    assert "tset" in Path(failure["log"]).read_text()
    found = records.read(out / "records.jsonl")
    assert {record.notes["cell"] for record in found} == {"dense,data=good", GOOD}
    own = records.read(out / "cells" / GOOD / "records.jsonl")
    assert {(r.target, r.metric, r.value) for r in own} == {
        (r.target, r.metric, r.value) for r in found if r.notes["cell"] == GOOD
    }
    table = (out / "table.md").read_text()
    assert "| pruned | random |" in table
    assert "small: miou, against dense" in table
    assert "| pruned random |" in table
    assert "left out of the pairs: data=bad (the arm is not measured and the control is not measured)" in table
    assert "small: miou, against dense" in said.out

    (out / "cells" / GOOD / "network.json").unlink()
    dense = (out / "cells" / "dense,data=good" / "network.json").stat().st_mtime_ns
    again = call("study", study, "--only", "data=good")
    assert again.code == 0, again
    assert f"2/2 done: {GOOD}" in again.out
    assert "done: dense" not in again.out
    assert (out / "cells" / "dense,data=good" / "network.json").stat().st_mtime_ns == dense
    assert "2/2" not in call("study", study, "--only", "data=good").out, "nothing is left to run"


@pytest.mark.costly
def test_a_study_that_keeps_records_only_prunes_what_it_tuned(ray, call, tmp_path):
    """The tuned cell holds only what was trained: the dense one keeps its weights until the pruned one is done."""
    network = {"name": "encoder_decoder", "encoder": "shufflenet_v2_x0_5", "decoder": "linear", "classes": "camvid11"}
    streets = {"size": [64, 96], "train": 4, "val": 1}
    data = {"sources": ["streets/sim"], "crop": [64, 64], "datasets": {"streets": streets}, "check": False}
    prune = {"criterion": "l2", "schedule": {"name": "one_shot"}, "ratio": 0.2, "recovery": 1}
    (tmp_path / "start.yaml").write_text(yaml.safe_dump({**RECIPE, "network": network, "data": data}))
    (tmp_path / "tuned.yaml").write_text(
        yaml.safe_dump({**RECIPE, "network": network, "data": data, "tuner": "frozen"})
    )
    (tmp_path / "pruned.yaml").write_text(yaml.safe_dump({**RECIPE, "network": network, "data": data, "prune": prune}))
    values = {
        "study": {"folder": str(tmp_path / "out"), "keep": "records"},
        "stages": {
            "dense": {"verb": "train", "recipe": "start.yaml"},
            "tuned": {"verb": "train", "recipe": "tuned.yaml", "after": "dense"},
            "pruned": {"verb": "prune", "recipe": "pruned.yaml", "after": "tuned", "set": {"evaluate.latency": False}},
        },
        "grid": {"seed": {"key": "run.seed", "values": [0]}},
        "table": {"rows": ["stage"]},
    }
    (tmp_path / "tuned_study.yaml").write_text(yaml.safe_dump(values))
    said = call("study", tmp_path / "tuned_study.yaml", "--jobs", "1")
    assert said.code == 0, said
    assert "3 cells: 3 done" in said.out
    assert not list((tmp_path / "out" / "cells").rglob("*.safetensors"))
    again = call("study", tmp_path / "tuned_study.yaml")
    assert (again.code, "3/3" in again.out) == (0, False), "nothing is left to run"


def test_a_dry_run_shows_the_cells_and_writes_nothing(call, study):
    said = call("study", study, "--dry-run", "study.folder=elsewhere")
    assert said.code == 0, said
    assert f"waiting  {GOOD}" in said.out
    assert "elsewhere: 4 cells: 4 waiting" in said.out
    assert not Path("elsewhere").exists()


def test_no_cell_of_a_comparison_is_cut_on_a_narrow_screen():
    from rich.console import Console

    from hardy.commands.output.board import _rich
    from hardy.report.pivot import Pivot

    cells = ("pruned activation_variance", "+10.0 [+9.0, +11.0] ≠", "0.25, illustration")
    console = Console(width=52, record=True, file=StringIO())
    console.print(_rich(Pivot(("arm", "difference", "p"), (cells,), 1, ""), wide=True))
    shown = console.export_text()
    assert "…" not in shown
    assert all(word in shown for word in ("+11.0]", "≠", "illustration"))


def test_bad_input_is_refused_before_anything_is_written(refused, study):
    line = refused("study", study, "grid.data.values={other: [test]}", "optim.stps=3")
    assert line.startswith(f"{study}: cell dense,data=other: unknown key 'optim.stps'")
    line = refused("study", study, "comparison.control=dens")
    known = "there are: dense, pruned random"
    assert line == f"{study}: comparison.control: there is no arm 'dens'; did you mean 'dense'?; {known}"
    assert refused("study", study, "--only", "data=goood").startswith("data has no value 'goood'; did you mean 'good'?")


def test_without_ray_one_line_names_the_extra(refused, study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused("study", study, f"study.folder={tmp_path}/new", leaving=[".lock"])
    assert line == "this needs Ray, which is not installed; pip install 'hardy[bulk]'"


@pytest.fixture
def going(tmp_path: Path) -> Path:
    """The file that says: go on."""
    file = tmp_path / "going"
    file.touch()
    return file


@pytest.mark.costly
def test_runs_wait_for_one_another_and_a_failed_one_is_reported_with_its_last_line(ray, tmp_path, going):
    words = {"first": "new", "again": "new", "never": "other"}  # the second hardy init in a folder is refused
    jobs = {name: Job(("init", "--to", str(tmp_path / word)), tmp_path / f"{name}.txt") for name, word in words.items()}
    order = Order({"first": None, "again": "first", "never": "again"})
    started, ended, ticks = [], {}, []
    run(
        ray,
        jobs,
        order,
        Share(1, 0),
        limit=2,
        going=going,
        starts=lambda name: not started.append(name),
        ended=lambda name, left, code, reason: ended.update({name: (left, code, reason)}),
        tick=lambda: ticks.append(1),
    )
    assert started == ["first", "again"]
    assert ended["first"] == ("done", 0, "")
    left, code, reason = ended["again"]
    assert (left, code) == ("failed", 2)
    assert reason == f"{tmp_path}/new/recipe.yaml: it already exists; give another folder with --to"
    assert order.states == {"first": "done", "again": "failed", "never": "skipped"}
    assert not (tmp_path / "other").exists()
    assert ticks


@pytest.mark.costly
def test_a_signal_stops_the_runs_and_starts_no_other(ray, tmp_path, going):
    jobs = {name: Job(("init", "--to", str(tmp_path / name)), tmp_path / f"{name}.txt") for name in ("one", "two")}
    order = Order({"one": None, "two": "one"})
    with pytest.raises(StoppedStudy) as stopped:
        run(
            ray,
            jobs,
            order,
            Share(1, 0),
            limit=1,
            going=going,
            starts=lambda _: not signal.raise_signal(signal.SIGTERM),
            ended=lambda *_: None,
            tick=lambda: None,
        )
    assert stopped.value.signal_number == signal.SIGTERM
    assert order.states["one"] in ("done", "stopped")
    assert order.states["two"] == "waiting"
    assert not going.exists()


@pytest.mark.parametrize(
    ("cpus", "gpus", "resources", "fit"),
    [
        (1, 0.25, {"CPU": 16, "GPU": 1}, 4),
        (4, 0.25, {"CPU": 6, "GPU": 1}, 1),
        (1, 0.4, {"CPU": 16, "GPU": 3}, 6),
        (1, 0.1, {"CPU": 64, "GPU": 2}, 20),
        (1, 2, {"CPU": 64, "GPU": 5}, 2),
        (0.5, 0, {"CPU": 2, "GPU": 1}, 4),
        (1, 0.5, {"CPU": 3}, 3),
    ],
)
def test_parts_of_cards_and_cores(cpus, gpus, resources, fit):
    one = share(cpus, gpus, resources)
    assert one.gpus == (gpus if "GPU" in resources else 0)
    assert slots(one, resources) == fit


def test_a_cell_that_fits_nowhere_is_refused():
    with pytest.raises(InputError, match="a cell needs 1 cores and 2 GPUs; there are 8 cores and 1 GPUs"):
        share(1, 2, {"CPU": 8, "GPU": 1})
