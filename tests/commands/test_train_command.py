"""``hardy train``: what is trained, selected, recorded and kept, and what is refused."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import hardy
from hardy.commands import train
from hardy.engine import protocol
from hardy.engine.evaluate import ScoreTable
from hardy.engine.run import Run
from hardy.errors import InputError
from hardy.metrics import Scores
from hardy.ops import cost
from hardy.recipe import from_values, read
from hardy.records import read as records_of

KEPT = {"curves.jsonl", "network.json", "network.safetensors", "recipe.yaml", "records.jsonl", "train.log"}


@pytest.fixture(scope="module")
def done(short_run, tmp_path_factory):
    """The folder of the run ``sections()``, which is finished."""
    return train.run(from_values(short_run(tmp_path_factory.mktemp("done") / "run")), show=False)


@pytest.fixture
def finished(done, tmp_path):
    """A copy of it where ``sections()`` runs."""
    return shutil.copytree(done, tmp_path / "run")


# ------------------------------------------------------------------------------------------------ the command


@pytest.mark.costly
def test_a_run_leaves_a_network_its_recipe_its_log_and_its_records(sections, capsys):
    recipe = from_values(sections(evaluate={"every": 4}))
    folder = train.run(recipe)
    assert {path.name for path in folder.iterdir()} == KEPT
    network = hardy.load(folder)
    assert network.architecture == {"name": "tiny", "options": {"width": 8, "aux": False}}

    assert read(folder / "recipe.yaml") == recipe
    head = (folder / "recipe.yaml").read_text(encoding="utf-8").split("network:")[0]
    for name in ("hardy: 0.1.0", "commit: ", "torch: ", "python: "):
        assert f"# {name}" in head
    text = (folder / "train.log").read_text(encoding="utf-8")
    assert "train step 4/8: segmentation " in text
    assert "train step 8: source validation " in text

    shown = capsys.readouterr()
    assert "folder/night" in shown.out
    assert "worst unseen" in shown.out
    assert shown.err == "", "no progress bar where nobody looks"


def test_records_hold_what_it_takes_to_compare(sections, finished):
    recipe = from_values(sections())
    found = records_of(finished / "records.jsonl")
    assert {(r.recipe, r.stage, r.sources, r.seed) for r in found} == {(recipe.digest(), "train", ("folder/day",), 0)}
    values = {(r.target, r.metric): r.value for r in found}
    assert len(values) == len(found)
    assert set(values) == {
        *(
            (domain, metric)
            for domain in ("folder/day", "folder/night")
            for metric in ("miou", "pixel_accuracy", "iou/road", "iou/wall", "iou/sky")
        ),
        *((group, "miou") for group in ("intra", "unseen", "worst", "gap")),
        ("cost", "parameters"),
        ("cost", "gmacs"),
    }
    network = hardy.load(recipe.run.folder)
    assert values["cost", "parameters"] == cost.parameters(network)
    assert values["cost", "gmacs"] == cost.gmacs(network, recipe.data.size or recipe.data.crop)
    ious = [values["folder/night", f"iou/{name}"] for name in ("road", "wall", "sky")]
    assert values["folder/night", "miou"] == pytest.approx(sum(ious) / 3, rel=1e-12)
    assert values["unseen", "miou"] == values["worst", "miou"] == values["folder/night", "miou"]
    assert values["gap", "miou"] == pytest.approx(values["intra", "miou"] - values["unseen", "miou"], rel=1e-12)
    for record in found:
        assert record.notes == {"network": "tiny", "select": "source-val", "selected_step": 8}
        assert record.cost["train_steps"] == 8
        assert record.cost["train_seconds"] > 0
        assert {"hardy", "commit", "torch", "python"} <= set(record.versions)


@pytest.mark.costly
def test_the_kept_weights_are_the_measured_ones(sections):
    """Measured again from the artefact, every number is the recorded one."""
    recipe = from_values(sections(evaluate={"every": 3}, optim={"ema": 0.7}))
    folder = train.run(recipe)
    data = sections()["data"]
    table = hardy.evaluate(hardy.load(folder), data["unseen"], datasets=data["datasets"], device="cpu")
    values = {(r.target, r.metric): r.value for r in records_of(folder / "records.jsonl")}
    assert table.unseen == values["unseen", "miou"]


@pytest.mark.costly
def test_training_learns(sections):
    folder = train.run(from_values(sections(optim={"steps": 60, "lr": 0.1})))
    values = {(r.target, r.metric): r.value for r in records_of(folder / "records.jsonl")}
    assert values["intra", "miou"] > 0.7


@pytest.mark.costly
def test_the_options_of_the_loss_reach_the_loop(sections):
    """Weights of 0 for two classes leave only the third to learn."""
    values = sections(loss={"name": "cross_entropy", "class_weights": [0.0, 0.0, 1.0]}, optim={"steps": 30, "lr": 0.1})
    folder = train.run(from_values(values))
    found = {(r.target, r.metric): r.value for r in records_of(folder / "records.jsonl")}
    assert found["folder/day", "iou/road"] == found["folder/day", "iou/wall"] == 0.0
    assert found["folder/day", "iou/sky"] > 0.2


@pytest.mark.costly
def test_the_seed_decides_the_initial_weights_and_the_batches(sections, done, tmp_path):
    def weights(name, seed):
        torch.rand(seed + len(name))  # what was drawn before does not matter
        folder = train.run(from_values(sections(run={"folder": str(tmp_path / name), "seed": seed})))
        return (folder / "network.safetensors").read_bytes()

    with_seed_0 = (done / "network.safetensors").read_bytes()
    assert weights("a", 0) == with_seed_0
    assert weights("bb", 1) != with_seed_0
    starts = []
    for seed in (0, 1):
        with Run.open(
            from_values(sections(run={"folder": str(tmp_path / f"start{seed}"), "seed": seed})), "train"
        ) as run:
            starts.append(run.network().head.weight)
    assert not torch.equal(*starts)


def test_a_finished_run_is_not_repeated(sections, finished, capsys):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert train.run(from_values(sections(run={"workers": 1, "log_every": 1}))) == finished
    assert "this run is finished; give another run.folder to run it again" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("change", [{"optim": {"lr": 0.01}}, {"run": {"seed": 1}}], ids=str)
def test_the_folder_of_another_recipe_or_seed_is_refused(sections, finished, change, ended):
    if not ended:
        (finished / "network.json").unlink()
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(
        InputError,
        match=r"holds the run of another recipe or seed \((optim\.lr|run\.seed) was .*\); give another run\.folder",
    ):
        train.run(from_values(sections(**change)))
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_the_written_recipe_repeats_the_run(done, tmp_path):
    again = train.run(read(done / "recipe.yaml", [f"run.folder={tmp_path / 'again'}"]))
    assert (again / "network.safetensors").read_bytes() == (done / "network.safetensors").read_bytes()


def test_without_a_folder_the_run_is_named_after_its_recipe(sections, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = from_values(sections(run={"folder": "", "seed": 5}))
    assert str(train.run(recipe)) == f"runs/tiny-{recipe.digest()}-s5"


# ------------------------------------------------------------------------------------------- which weights are kept


@pytest.fixture
def scored(monkeypatch):
    """Validation scores are given by hand: ``scored([...])``; returns what was judged, as (domains, ...) per call."""

    def build(scores):
        asked, real = [], protocol.measure

        def measure(network, parts, settings, **keywords):
            asked.append([part[0].name for _, part in parts])
            table = real(network, parts, settings, **keywords)
            if len(asked) > len(scores):
                return table
            said = Scores(scores[len(asked) - 1], (), 0.0)
            return ScoreTable(tuple(replace(row, scores=said) for row in table.rows), table.classes)

        monkeypatch.setattr(protocol, "measure", measure)
        return asked

    return build


@pytest.mark.costly
@pytest.mark.parametrize(
    ("select", "scores", "judged", "kept"),
    [
        ("source-val", [0.2, 0.6, 0.4], "folder/day", 6),
        ("source-val", [0.5, 0.5, 0.5], "folder/day", 3),
        ("source-val", [float("nan"), 0.1, 0.05], "folder/day", 6),
        ("oracle", [0.7, 0.6, 0.4], "folder/night", 3),
        ("last", [], None, 8),
    ],
)
def test_the_selection_rule_is_obeyed_and_recorded(sections, scored, tmp_path, select, scores, judged, kept):
    asked = scored(scores)
    folder = train.run(from_values(sections(evaluate={"select": select, "every": 0 if select == "last" else 3})))
    assert asked[: len(scores)] == [[judged]] * len(scores)
    assert len(asked) == len(scores) + 1
    note = records_of(folder / "records.jsonl")[0].notes
    assert (note["select"], note["selected_step"]) == (select, kept)

    # The weights are those of that step: a run of the same schedule that is stopped there has them.
    asked = scored([])
    seen = {}
    recipe = from_values(sections(run={"folder": str(tmp_path / "other"), "log_every": 1}, evaluate={"select": "last"}))
    with Run.open(recipe, "train") as here:
        network = here.network()
        parts = protocol.split(recipe.data, 0)
        protocol.fit(
            here.algorithm(network),
            parts,
            here.settings,
            folder=here.folder,
            owner="x",
            log=lambda step, values: seen.update({step: {n: v.clone() for n, v in network.state_dict().items()}}),
        )
    for name, value in load_file(folder / "network.safetensors").items():
        assert torch.equal(value, seen[kept][name]), name


def test_the_oracle_needs_unseen_domains(sections):
    with pytest.raises(InputError, match=r"evaluate\.select: oracle selects by data\.unseen, which names no domain"):
        train.run(from_values(sections(evaluate={"select": "oracle"}, data={"unseen": []})))


# --------------------------------------------------------------------------------------------- what is refused


def refused(values):
    with pytest.raises(InputError) as caught:
        train.run(from_values(values))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_data_are_refused_before_the_first_step(sections, town, tmp_path):
    assert "data.sources: no domain is named to train on" in refused(sections(data={"sources": []}))
    assert "'folder/day' is also in data.sources" in refused(sections(data={"unseen": ["folder/day"]}))
    assert "folder has no domain 'dey'; did you mean 'day'?" in refused(sections(data={"sources": ["folder/dey"]}))
    broken = shutil.copytree(town, tmp_path / "broken")
    Image.new("L", (48, 32), 77).save(broken / "masks" / "day" / "03.png")
    text = refused(sections(data={"datasets": {"folder": {"root": str(broken)}}}, run={"folder": str(tmp_path / "b")}))
    assert "03.png" in text
    assert "77" in text
    assert "1536" in text
    assert not (tmp_path / "b").exists(), "a refused run leaves nothing behind"


@pytest.mark.costly
def test_a_recipe_put_right_may_use_the_same_folder(sections):
    assert "did you mean 'day'" in refused(sections(data={"sources": ["folder/dey"]}))
    assert {path.name for path in train.run(from_values(sections())).iterdir()} == KEPT


def test_a_folder_that_cannot_be_written_is_refused(sections, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(sections(run={"folder": str(tmp_path / "file" / "run")}))


def test_an_unknown_tracker_is_refused(sections):
    assert "run.trackers: 'tensorbord' is not installed or not known; did you mean 'tensorboard'?" in refused(
        sections(run={"trackers": ["tensorbord"]})
    )
