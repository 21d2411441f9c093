"""A recipe's ``teacher``, and that of `hardy.train`: checked on reading, loaded once, refused where unused."""

import copy

import pytest
import torch
import yaml

import hardy
from hardy import records
from hardy.algorithms.distillation import Distillation
from hardy.commands import prune, train
from hardy.data.label_spaces import read_classes
from hardy.deployment.export import export
from hardy.engine import teachers
from hardy.engine.run import Run
from hardy.engine.unused import refuse_unused
from hardy.errors import InputError
from hardy.recipe import from_values, read
from hardy.seed import seeded

# An ONNX file gives logits of full size.
DISTIL = {"name": "distillation", "losses": {"kl": {"weight": 5.0}}, "resolution": "full"}
TRAIN = {"network": "tiny", "data": {"sources": ["streets/sim"]}, "teacher": {"run": "runs/x"}}
CUT = {"criterion": "l2", "schedule": "one_shot", "min_width": 2, "round_to": 1, "ratio": 0.4}


@pytest.fixture(scope="module")
def network(town):
    with seeded(5, "teacher"):
        return hardy.create("tiny", read_classes(town / "classes.yaml").space, width=8).eval()


@pytest.fixture(scope="module")
def kept(network, tmp_path_factory):
    return hardy.save(network, tmp_path_factory.mktemp("teacher") / "run")


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "net.onnx"
    export(network, file, size=(32, 48), dynamic=True, output="logits")
    return file


@pytest.fixture
def no_timing(monkeypatch):
    monkeypatch.setattr(prune, "costs", lambda *_: ([], []))
    monkeypatch.setattr(prune, "show_costs", lambda *_: None)


def weights(folder):
    return hardy.load(folder).state_dict()


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


# -------------------------------------------------------------------------------------------------- read and named


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "teacher: give either the folder of a run, as run: runs/x, or a file, as onnx: x.onnx"),
        ({"run": "runs/x", "onnx": "x.onnx"}, "teacher: give either the folder of a run"),
        ({"onnx": "x.onnx", "precision": "bf16"}, "teacher: precision bf16 has no effect on an ONNX file"),
        ({"run": "runs/x", "precision": "fp16"}, "teacher.precision: input should be 'auto', 'fp32' or 'bf16'"),
        ({"rnu": "runs/x"}, "unknown key 'teacher.rnu'; did you mean 'run'"),
        ({"run": ""}, "teacher.run: "),
        ({"run": "runs/x", "cache_mb": 5}, "teacher: cache_mb: has no effect without cache_folder"),
    ],
)
def test_it_is_checked_on_reading(section, said):
    with pytest.raises(InputError) as caught:
        from_values({**TRAIN, "teacher": section})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_in_the_digest_when_present():
    def digest(**section):
        return from_values({**TRAIN, "teacher": section or None}).digest()

    plain = from_values({key: value for key, value in TRAIN.items() if key != "teacher"})
    assert plain.teacher is None
    assert digest() == plain.digest()
    assert len({digest(), digest(run="a"), digest(run="b"), digest(run="a", precision="bf16"), digest(onnx="a")}) == 5
    assert digest(run="a", sha256="0") == digest(run="b", sha256="0") != digest(run="a", sha256="1")
    overridden = from_values(TRAIN, ["teacher.precision=bf16"])
    assert (overridden.teacher.run, overridden.teacher.precision) == ("runs/x", "bf16")


@pytest.mark.parametrize(
    ("verb", "values", "why"),
    [
        ("train", TRAIN, "erm needs no teacher; train with distillation or the like"),
        ("prune", {**TRAIN, "prune": {**CUT, "recovery": 5}}, "erm needs no teacher"),
        ("prune", {**TRAIN, "network": {"run": "x"}, "prune": CUT, "algorithm": DISTIL}, "no algorithm that needs one"),
        (
            "prune",
            {**TRAIN, "prune": {**CUT, "recovery": 5, "recover_with": "mixup"}},
            "erm and mixup needs no teacher",
        ),
        ("search", {**TRAIN, "algorithm": DISTIL, "search": {"budget_ms": 5}}, "no algorithm that needs one is used"),
    ],
)
def test_a_section_that_no_algorithm_asks_for_is_refused(verb, values, why):
    with pytest.raises(InputError) as caught:
        refuse_unused(from_values(values), verb)
    assert str(caught.value).startswith(f"teacher: the section has no effect: {why}")


@pytest.mark.parametrize(
    ("verb", "values"),
    [
        ("train", {**TRAIN, "algorithm": DISTIL}),
        ("prune", {**TRAIN, "prune": CUT, "algorithm": DISTIL}),
        ("prune", {**TRAIN, "network": {"run": "x"}, "prune": {**CUT, "recovery": 5}, "algorithm": DISTIL}),
        ("prune", {**TRAIN, "prune": {**CUT, "recovery": 5, "recover_with": DISTIL}}),
    ],
)
def test_one_that_is_asked_for_is_not(verb, values):
    refuse_unused(from_values(values), verb)


# ---------------------------------------------------------------------------------------------------- trained with


@pytest.mark.costly
def test_the_recipes_teacher_is_learned_from(sections, kept, network, tmp_path, monkeypatch):
    """The run ends in the bits of one that is given the teacher by hand, and not in those of one without."""
    made = sections(algorithm=DISTIL, teacher={"run": str(kept)})
    loaded = []
    load = teachers.load
    monkeypatch.setattr(teachers, "load", lambda choice: loaded.append(choice) or load(choice))
    folder = train.run(from_values(made), show=False)
    found = weights(folder)
    assert len(loaded) == 1
    agreed = {one.target for one in records.read(folder / "records.jsonl") if one.metric == "agreement"}
    assert agreed >= {"intra", "unseen", "worst", *made["data"]["unseen"]}
    by_hand = []
    for teacher in (network, None):
        name = "distillation" if teacher else "erm"
        made = sections(algorithm=DISTIL if teacher else {"name": name}, run={"folder": str(tmp_path / name)})
        with Run.open(from_values(made), "train") as run:
            trained = run.network()
            run.fit(trained, run.images(trained), "train", teacher=teacher)
            by_hand.append(trained.state_dict())
    assert same(found, by_hand[0])
    assert not same(found, by_hand[1])


@pytest.mark.costly
def test_a_file_teaches_nearly_what_its_network_does(sections, kept, exported, tmp_path):
    found = []
    for name, teacher in (("run", {"run": str(kept)}), ("onnx", {"onnx": str(exported)})):
        made = sections(algorithm=DISTIL, teacher=teacher, run={"folder": str(tmp_path / name)}, optim={"steps": 2})
        found.append(weights(train.run(from_values(made), show=False)))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_teacher_that_cannot_be_loaded_leaves_nothing(sections, tmp_path):
    made = sections(algorithm=DISTIL, teacher={"run": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"teacher\.run: .*none: no network\.json here"):
        train.run(from_values(made), show=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.costly
def test_recovery_learns_from_the_recipes_teacher_else_from_the_dense_network(
    sections, kept, network, town, tmp_path, no_timing, monkeypatch
):
    with seeded(1, "dense"):
        dense = hardy.create("tiny", read_classes(town / "classes.yaml").space, width=8).eval()
    hardy.save(dense, tmp_path / "dense")
    taught = []
    build = Distillation.__init__

    def seen(self, network, pixel_loss, teacher, **options):
        taught.append(teacher)
        build(self, network, pixel_loss, teacher, **options)

    monkeypatch.setattr(Distillation, "__init__", seen)
    for name, teacher, wanted in (("with", {"run": str(kept)}, network), ("without", None, dense)):
        made = sections(prune={**CUT, "recovery": 2, "recover_with": DISTIL}, run={"folder": str(tmp_path / name)})
        made |= {"network": {"run": str(tmp_path / "dense")}, **({"teacher": teacher} if teacher else {})}
        taught.clear()
        prune.run(from_values(made), show=False)
        assert taught
        assert all(same(one.network.state_dict(), wanted.state_dict()) for one in taught)
        assert {one.precision for one in taught} == {"fp32" if teacher else None}


# ------------------------------------------------------------------------------------------------------- from Python


@pytest.fixture
def trained(town, of_python):
    def train(teacher):
        with seeded(3, "student"):
            student = hardy.create("tiny", str(town), width=8)
        return hardy.train(student, algorithm=DISTIL, teacher=teacher, steps=2, **of_python)

    return train


@pytest.mark.costly
def test_python_takes_a_network_or_a_folder(trained, network, kept):
    before = copy.deepcopy(network.state_dict())
    wanted = trained(kept).state_dict()
    assert same(trained(network).state_dict(), wanted)
    assert same(network.state_dict(), before)
    assert same(trained({"run": str(kept)}).state_dict(), wanted)
    with pytest.raises(InputError, match="needs 'teacher', which is missing"):
        trained(None)


@pytest.mark.costly
def test_python_takes_a_file(trained, kept, exported):
    wanted = trained(kept).state_dict()
    for name, value in trained(exported).state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.costly
def test_a_teacher_in_memory_is_kept_and_the_recipe_beside_it_repeats_the_run(town, of_python, network, tmp_path):
    folder = tmp_path / "run"
    with seeded(3, "student"):
        student = hardy.create("tiny", str(town), width=8)
    hardy.train(student, algorithm=DISTIL, teacher=network, steps=3, folder=folder, **of_python)
    section = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["teacher"]
    assert section["run"] == str(folder / "teacher")
    assert same(weights(folder / "teacher"), network.state_dict())
    again = read(folder / "recipe.yaml", [f"run.folder={tmp_path / 'again'}"])
    assert same(weights(train.run(again, show=False)), student.state_dict())
    with torch.no_grad():
        other = copy.deepcopy(network)
        other.head.bias.add_(1)
    with pytest.raises(InputError, match=r"holds the run of another recipe .*teacher\.sha256 was"):
        hardy.train(student, algorithm=DISTIL, teacher=other, steps=3, folder=folder, **of_python)


def test_a_teacher_of_other_classes_leaves_nothing_behind(town, of_python, tmp_path):
    student, other = (hardy.create("tiny", classes, width=8) for classes in (str(town), "camvid11"))
    with pytest.raises(InputError, match=r"teacher: it predicts camvid11 and lacks \d+ of the"):
        hardy.train(student, algorithm=DISTIL, teacher=other, folder=tmp_path / "run", **of_python)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------ born again


@pytest.mark.costly
@pytest.mark.parametrize("algorithm", ["distillation", "two_stage"])
def test_an_earlier_run_of_the_same_network_teaches_the_next(algorithm, sections, tmp_path):
    """Born again, twice: each generation starts anew and learns from the one before; a finished run repeats nothing."""
    first = train.run(from_values(sections(run={"folder": str(tmp_path / "run0")})), show=False)
    generations = [first]
    for number in (1, 2):
        made = sections(
            algorithm={"name": algorithm},
            teacher={"run": str(generations[-1])},
            run={"folder": str(tmp_path / f"run{number}"), "log_every": 1},
        )
        folder = train.run(from_values(made), show=False)
        assert train.run(read(folder / "recipe.yaml"), show=False) == folder
        generations.append(folder)
    found = [weights(folder) for folder in generations]
    assert not any(same(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    log = (generations[1] / "train.log").read_text(encoding="utf-8")
    assert log.count("  kl ") == 8 if algorithm == "distillation" else log.count("  positions ") == 4
    assert (generations[1] / "records.jsonl").exists()


@pytest.mark.costly
def test_a_recovery_in_two_stages_counts_its_own_steps(sections, town, tmp_path, no_timing):
    """Not those of the recipe's training."""
    with seeded(1, "dense"):
        dense = hardy.create("tiny", read_classes(town / "classes.yaml").space, width=8).eval()
    hardy.save(dense, tmp_path / "dense")
    made = sections(prune={**CUT, "recovery": 4, "recover_with": "two_stage"}, run={"log_every": 1})
    folder = prune.run(from_values(made | {"network": {"run": str(tmp_path / "dense")}}), show=False)
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert (log.count("  positions "), log.count(": segmentation ")) == (2, 2)
