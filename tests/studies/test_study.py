"""A study's file and its cells: which there are, what each sets, and what is refused before anything runs."""

from pathlib import Path

import pytest
import yaml

from hardy.errors import InputError
from hardy.studies.cells import Cell, Cells, filters, make_cells
from hardy.studies.study import Study, listed, paired, read

RECIPE = {
    "network": {"name": "tiny", "classes": "cityscapes19"},
    "data": {"sources": ["streets/sim", "streets/day"], "unseen": ["streets/night"], "crop": [32, 32]},
}
STUDY = {
    "stages": {
        "pruned": {"verb": "prune", "recipe": "pruned.yaml", "after": "dense"},
        "dense": {"verb": "train", "recipe": "dense.yaml", "set": {"optim.steps": 7}},
    },
    "grid": {
        "seed": {"key": "run.seed", "values": [0, 1]},
        "loss": {"stages": "dense", "key": "loss", "values": {"ce": "cross_entropy", "hard": "ohem"}},
        "ratio": {"stages": ["pruned"], "key": "prune.ratio", "values": [0.3, 0.5]},
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A study of 2 x 2 dense and 2 x 2 x 2 pruned cells."""
    (tmp_path / "dense.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "pruned.yaml").write_text(yaml.safe_dump({**RECIPE, "prune": {"criterion": {"name": "ior"}}}))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return tmp_path / "study.yaml"


def planned(file: Path, *overrides: str) -> tuple[Study, Cells]:
    study, others = read(file, overrides)
    return study, make_cells(study, file, others)


def cells(file: Path, *overrides: str) -> dict[str, Cell]:
    return {cell.name: cell for cell in planned(file, *overrides)[1].cells}


def test_the_cells_are_all_combinations_each_behind_what_it_goes_on_from(file):
    found = cells(file)
    dense = [f"dense,loss={loss},seed={seed}" for seed in (0, 1) for loss in ("ce", "hard")]
    pruned = [
        f"pruned,loss={loss},ratio={r},seed={seed}" for seed in (0, 1) for loss in ("ce", "hard") for r in (0.3, 0.5)
    ]
    assert list(found) == dense + pruned
    assert [found[name].after for name in pruned] == [name for name in dense for _ in range(2)]
    assert all(found[name].after is None for name in dense)
    turned = yaml.safe_load(file.read_text())
    turned["grid"] = dict(reversed(turned["grid"].items()))
    file.write_text(yaml.safe_dump(turned, sort_keys=False))
    assert set(cells(file)) == set(found), "the order of the axes changes no name"


def test_a_cell_holds_what_its_stage_and_its_place_on_the_axes_set(file):
    found = cells(file, "study.folder=out", "study.cpus=3", "optim.batch=5", "prune.recovery=9")
    dense, pruned = found["dense,loss=hard,seed=1"], found["pruned,loss=hard,ratio=0.3,seed=1"]
    assert (dense.verb, pruned.verb) == ("train", "prune")
    assert dense.axes == {"seed": "1", "loss": "hard"}
    assert pruned.axes == {"seed": "1", "loss": "hard", "ratio": "0.3"}
    assert (dense.recipe.optim.steps, dense.recipe.optim.batch, dense.recipe.run.seed) == (7, 5, 1)
    assert (pruned.recipe.optim.batch, pruned.recipe.run.seed, pruned.recipe.run.threads) == (5, 1, 3)
    assert dense.recipe.loss.name == "ohem"
    assert pruned.recipe.loss.name == "cross_entropy", "an axis of another stage only distinguishes cells"
    assert dense.recipe.prune is None, "an override of pruning is not for training"
    assert (pruned.recipe.prune.ratio, pruned.recipe.prune.recovery) == (0.3, 9)
    assert pruned.recipe.network.run == "out/cells/dense,loss=hard,seed=1"
    assert pruned.recipe.run.folder == "out/cells/pruned,loss=hard,ratio=0.3,seed=1"


def test_the_folder_of_the_cell_before_stands_for_itself(file):
    study = yaml.safe_load(file.read_text())
    study["stages"]["pruned"]["set"] = {"prune.recover_with": {"name": "dsp", "style": "{after}"}}
    study["grid"]["style"] = {
        "stages": "pruned",
        "values": {"own": {"prune.criterion": {"name": "npdg", "style": "{after}/x"}}},
    }
    file.write_text(yaml.safe_dump(study))
    found = cells(file, "study.folder=out")["pruned,loss=hard,ratio=0.3,seed=1,style=own"].recipe.prune
    assert found.recover_with.options["style"] == "out/cells/dense,loss=hard,seed=1"
    assert found.criterion.options["style"] == "out/cells/dense,loss=hard,seed=1/x"
    study["stages"]["dense"]["set"] = {"run.folder": "{after}"}
    file.write_text(yaml.safe_dump(study))
    with pytest.raises(
        InputError, match=r"cell dense,.*'\{after\}' needs the stage that this one continues from; name that stage"
    ):
        cells(file)


def test_the_folder_is_named_by_the_file(file):
    assert read(file)[0].study.folder == "runs/studies/study"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("[streets/sim, streets/fog, streets/night]", ("sim", "fog", "night")),
        ("[streets/day, idd/day]", ("streets_day", "idd_day")),
        ("streets", ("sim", "day", "dusk", "night", "fog", "rain", "snow", "city_b", "camera_b")),
    ],
)
def test_each_domain_is_left_out_in_turn(file, wanted, names):
    found = cells(file, f"grid={{away: {{stages: dense, leave_out: {wanted}}}}}", "stages.pruned.after=null")
    data = {cell.axes["away"]: cell.recipe.data for cell in found.values() if cell.stage == "dense"}
    assert tuple(data) == names
    every = [one.unseen[0] for one in data.values()]
    for one in data.values():
        assert len(one.unseen) == 1
        assert one.sources == tuple(name for name in every if name != one.unseen[0])


def test_an_axis_may_set_several_keys_at_once(file):
    both = "{slow: {optim.lr: 0.001, optim.steps: 20}, fast: {optim.lr: 0.1}}"
    found = cells(file, f"grid={{pace: {{stages: dense, values: {both}}}}}")
    assert [cell.axes["pace"] for cell in found.values()] == ["slow", "fast"] * 2
    optim = [cell.recipe.optim for cell in found.values()]
    assert [(one.lr, one.steps) for one in optim[:2]] == [(0.001, 20), (0.1, 7)]


def test_skip_takes_out_cells_and_what_goes_on_from_them(file):
    found = cells(file, "skip=[{loss: hard, seed: [1]}, {ratio: 0.5, seed: 0}]")
    assert list(found) == [
        "dense,loss=ce,seed=0",
        "dense,loss=hard,seed=0",
        "dense,loss=ce,seed=1",
        "pruned,loss=ce,ratio=0.3,seed=0",
        "pruned,loss=hard,ratio=0.3,seed=0",
        "pruned,loss=ce,ratio=0.3,seed=1",
        "pruned,loss=ce,ratio=0.5,seed=1",
    ]


def test_only_keeps_cells_and_what_they_go_on_from(file):
    _, found = planned(file)
    chosen = found.chosen({"loss": ["ce"]}, filters(["stage=pruned", "seed=1", "ratio=0.3,0.5"]))
    assert [cell.name for cell in chosen] == [
        "dense,loss=ce,seed=1",
        "pruned,loss=ce,ratio=0.3,seed=1",
        "pruned,loss=ce,ratio=0.5,seed=1",
    ]
    assert [cell.stage for cell in found.chosen(filters(["stage=dense"]))] == ["dense"] * 4


BAD = {
    "grid.seed.stages=[dens]": "grid.seed.stages: there is no stage 'dens'; did you mean 'dense'?",
    "stages.pruned.after=dnse": "stages.pruned.after: there is no stage 'dnse'; did you mean 'dense'?",
    "stages.dense.after=pruned": "is a circle",
    "stages.dense.after=dense": "dense after dense is a circle",
    "stages.dense.verb=evaluate": "stages.dense.verb: input should be 'train' or 'prune' (got 'evaluate')",
    "stages.dense.recipe=none.yaml": "none.yaml: cannot be read: No such file or directory",
    "stages={}": "stages: it is empty",
    "grid={}": "grid: it is empty",
    "grid.stage={key: run.seed, values: [1]}": "grid: 'stage' is not a name",
    "grid.seed.values=[]": "grid.seed: it has no values",
    "grid.seed.values=[1, 1]": "grid.seed: two values are called '1'",
    "grid.seed.key=null": "grid.seed: without a key each value is a mapping",
    "grid.seed.values=[[1, 2]]": "grid.seed: values that are lists or mappings need names",
    "grid.seed.leave_out=streets": "grid.seed: leave_out sets data.sources and data.unseen; give no key",
    "grid={a: {stages: dense, leave_out: streets/sim}}": "grid.a.leave_out: it needs two or more different domains",
    "grid.seed.key=run.sed": "cell dense,loss=ce,seed=0: unknown key 'run.sed'; did you mean 'seed'?",
    "grid.ratio.values=[1.5]": "cell pruned,loss=ce,ratio=1.5,seed=0: prune.ratio: input should be less than 1",
    "grid.loss.values=[ohm]": "cell dense,loss=ohm,seed=0: there is no loss 'ohm'; did you mean 'ohem'?",
    "study.gpu=0.5": "unknown key 'study.gpu'; did you mean 'gpus'?",
    "grid.seed.vals=[1]": "unknown key 'grid.seed.vals'; did you mean 'values'?",
    "seed=0": "unknown key 'seed'; to run a part of the cells, give each filter as --only seed=...",
    "stage=dense": "--only stage=...",
    "study.cpus=0": "study.cpus: input should be greater than 0",
    "table.rows=[sed]": "table.rows: there is no axis 'sed'; did you mean 'seed'?",
    "table={rows: [seed], columns: seed}": "table: 'seed' is both a row and a column",
    "table.compare={axis: loss, of: ce, against: hrd}": "loss has no value 'hrd'; did you mean 'hard'?; it has: ce",
    "comparison={}": "comparison.control is missing",
    "comparison={control: dense, pair: seed}": "unknown key 'comparison.pair'; did you mean 'pairs'?",
    "comparison={control: dense, pairs: [sed]}": "comparison.pairs: there is no axis 'sed'; did you mean 'seed'?",
    "comparison={control: dense, by: rato}": "comparison.by: there is no axis 'rato'; did you mean 'ratio'?",
    "comparison={control: dense, by: seed}": "comparison: 'seed' is both in pairs and in by",
    "comparison={control: dense, value: intr}": "comparison.value: input should be 'unseen', 'worst' or 'intra'",
    "comparison={control: dense, blocks: {streets: 0}}": "comparison.blocks.streets: input should be greater than or",
    "skip=[{sed: 1}]": "there is no axis 'sed'; did you mean 'seed'?",
    "run.seed=3": "override 'run.seed=3': grid.seed sets that key; override grid.seed.values",
    "study.folder": "is not of the form key=value",
    "stages.dense.verb=prune": "verb prune needs a prune section",
}


@pytest.mark.parametrize(("override", "said"), BAD.items(), ids=BAD)
def test_bad_input_is_refused_in_one_line(file, override, said):
    with pytest.raises(InputError) as refused:
        planned(file, override)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["seed=7"], "seed has no value '7'; it has: 0, 1"),
        (["sead=0"], "there is no axis 'sead'; did you mean 'seed'?"),
        (["seed"], "--only 'seed' is not of the form axis=value"),
    ],
)
def test_a_bad_filter_is_refused(file, texts, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        planned(file)[1].chosen(filters(texts))


def test_no_cell_left_is_refused(file):
    with pytest.raises(InputError, match="exclude every cell"):
        planned(file, "skip=[{stage: dense}]")[1].chosen()


def test_a_file_that_is_no_study_is_refused(tmp_path):
    for text, said in {
        "- a": "a study is a mapping of sections",
        "{": "not YAML",
        "grid: {}": "stages is missing",
    }.items():
        (tmp_path / "study.yaml").write_text(text)
        with pytest.raises(InputError, match=said):
            read(tmp_path / "study.yaml")


def test_cells_are_paired_by_seeds_and_by_domains_left_out(file):
    grid = """{away: {leave_out: streets}, rate: {key: optim.lr, values: [0.1]}, seed: {key: run.seed, values: [0]},
              both: {values: {a: {run.seed: 3, optim.lr: 0.2}}}}"""
    study, _ = read(file, [f"grid={grid}", "comparison={control: dense}"])
    assert paired(study, study.comparison) == ("away", "seed", "both")
    assert paired(study, study.comparison, seeds=True) == ("seed", "both")
    study, _ = read(file, [f"grid={grid}", "comparison={control: dense, pairs: [rate, seed]}"])
    assert paired(study, study.comparison) == ("rate", "seed")
    with pytest.raises(InputError, match=r"comparison\.pairs: no axis sets run.seed or leaves domains out"):
        read(file, ["grid={rate: {key: optim.lr, values: [0.1]}}", "comparison={control: dense}"])


def test_one_name_or_several():
    assert listed("a") == ("a",)
    assert listed(("a", "b")) == ("a", "b")
