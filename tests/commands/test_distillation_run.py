"""A run that distils: images without labels, several teachers, a size, a cache, the table, and the lineage."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image

import hardy
from hardy import records
from hardy.algorithms.distillation import Distillation
from hardy.commands import prune, train
from hardy.data.label_spaces import read_classes
from hardy.deployment.export import export
from hardy.engine import protocol, teacher_precision
from hardy.engine.fit import Fit
from hardy.engine.run import Run
from hardy.errors import InputError
from hardy.networks.building import lineage
from hardy.networks.building.teacher import Teacher
from hardy.ops.divergence import divergence
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units
from hardy.recipe import from_values
from hardy.registry import LOSSES
from hardy.seed import seed_all, seeded
from hardy.stored import sealed
from hardy.types import IGNORE, Batch

DISTIL = {"name": "distillation", "balance_every": 2}
ENCODED = {"encoder": "test_resnet", "decoder": "linear"}
CUT = {"criterion": "l2", "schedule": "one_shot", "min_width": 2, "round_to": 1, "ratio": 0.4}


def drawn(town, seed=5, width=8):
    with seeded(seed, "teacher"):
        return hardy.create("tiny", read_classes(town / "classes.yaml").space, width=width).eval()


@pytest.fixture(scope="module")
def places(town, tmp_path_factory):
    """A folder or file of each kind of teacher."""
    folder = tmp_path_factory.mktemp("teachers")
    network = drawn(town)
    small = drawn(town)
    units = find_units(small)
    remove(small, units, {unit.name: range(0, unit.size, 2) for unit in units})
    tuned = hardy.create("encoder_decoder", str(town), **ENCODED)
    data = {"sources": ["folder/day"], "crop": [32, 48], "datasets": {"folder": {"root": str(town)}}}
    run = {"workers": 0, "device": "cpu"}
    hardy.train(tuned, data=data, tuner="frozen", steps=1, optim={"batch": 4}, run=run)
    return {
        "run": hardy.save(network, folder / "run"),
        "other": hardy.save(drawn(town, 7, 16), folder / "other"),
        "pruned": hardy.save(small, folder / "pruned"),
        "tuned": hardy.save(tuned, folder / "tuned"),
    }


@pytest.fixture(scope="module")
def files(town, places, tmp_path_factory):
    """The same, and an ONNX file."""
    file = tmp_path_factory.mktemp("teachers") / "net.onnx"
    export(drawn(town), file, size=(32, 48), dynamic=True, output="logits")
    return {**places, "onnx": file}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five images without labels."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def weights(folder):
    return hardy.load(folder).state_dict()


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def trained(sections, folder, teacher, **changes):
    made = sections(**{"algorithm": DISTIL, "run": {"folder": str(folder)}, "optim": {"steps": 4}, **changes})
    return train.run(from_values({**made, "teacher": teacher}), show=False)


# ---------------------------------------------------------------------------------------------- images without labels


@pytest.mark.costly
def test_images_without_labels_teach_and_a_resumed_run_ends_in_the_same_bits(sections, places, pictures, tmp_path):
    teacher, data = {"run": str(places["run"])}, {"unlabelled": [str(pictures)], "unlabelled_batch": 3}
    found = weights(trained(sections, tmp_path / "whole", teacher, data=data))
    assert not same(found, weights(trained(sections, tmp_path / "without", teacher)))
    made = sections(algorithm=DISTIL, data=data, run={"folder": str(tmp_path / "run")}, optim={"steps": 4})
    recipe = from_values({**made, "teacher": teacher})
    with Run.open(recipe, "train") as run:
        stop_after(run, run.network(), 2)
    assert same(weights(train.run(recipe, show=False)), found)


def stop_after(run, network, steps):
    """Train for some steps and write the checkpoint, as a run that is killed then has."""
    images, settings = run.images(network), run.settings
    seed_all(run.recipe.run.seed, "train", "algorithm")
    algorithm = run.algorithm(network)
    batches = protocol.training(images.train, network.label_space, settings, stage="train", folders=images.unlabelled)
    owner = f"{run.recipe.digest()}/{run.recipe.run.seed}/train"
    loop = Fit(algorithm, batches, settings.optim, settings.run, folder=run.folder, owner=owner)
    loop.run(steps)
    loop.save()


def test_the_task_is_learned_from_labelled_images_alone(town):
    """The teacher is followed on every pixel of images without labels, and on labelled pixels of the others."""
    student, teacher = drawn(town, 1), drawn(town, 2)
    seen = []
    loss = LOSSES.build("cross_entropy", {"class_count": 3})

    def noted(logits, labels):
        seen.append(labels)
        return loss(logits, labels)

    losses = {"kl": {"weight": 1.0}}
    algorithm = Distillation(student, noted, Teacher(teacher), losses=losses, balance="fixed", resolution="full").eval()
    images, labels = torch.rand(4, 3, 32, 48), torch.randint(0, 3, (4, 32, 48))
    labels[:2, :20], labels[2:] = IGNORE, IGNORE
    terms = algorithm(Batch(images, labels, torch.tensor([0, 0, -1, -1])))
    assert len(seen) == 1
    assert torch.equal(seen[0], labels[:2])
    counted = labels != IGNORE
    counted[2:] = True
    wanted = divergence(teacher(images), student(images), counted)
    torch.testing.assert_close(terms["kl"], wanted)
    alone = Batch(images, torch.full_like(labels, IGNORE), torch.full((4,), -1))
    assert set(algorithm(alone)) == {"kl"}
    assert len(seen) == 1, "no image has a label"


def test_an_algorithm_that_uses_none_refuses_them(sections, places, pictures):
    made = sections(data={"unlabelled": [str(pictures)]})
    with pytest.raises(InputError, match=r"data\.unlabelled: \[.*\] has no effect: erm uses no images without labels"):
        train.run(from_values(made), show=False)
    made = sections(algorithm=DISTIL, data={"unlabelled_batch": 3})
    with pytest.raises(InputError, match=r"data\.unlabelled_batch: 3 has no effect: data\.unlabelled names no folder"):
        train.run(from_values({**made, "teacher": {"run": str(places["run"])}}), show=False)


def test_an_image_of_an_unseen_domain_is_refused(sections, places, town, tmp_path):
    with pytest.raises(InputError, match=r"is an image of the unseen domain folder/night"):
        trained(sections, tmp_path / "run", {"run": str(places["run"])}, data={"unlabelled": [str(town / "images")]})
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------------ teachers


@pytest.mark.costly
@pytest.mark.parametrize("kind", ["run", "pruned", "tuned", "onnx"])
@pytest.mark.parametrize("size", [None, [64, 64]])
def test_every_artefact_teaches_at_any_size(sections, files, tmp_path, kind, size):
    teacher = {"onnx" if kind == "onnx" else "run": str(files[kind]), "size": size}
    found = trained(sections, tmp_path / "run", teacher)
    (entry,) = hardy.load(found).lineage
    assert entry["teachers"][0]["from"] == str(files[kind])
    assert len(entry["teachers"][0]["sha256"]) == 64


def test_a_wrapped_module_teaches(town, of_python):
    teacher, student = drawn(town), drawn(town, 3)
    wrapped = hardy.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1)), classes=teacher.label_space)
    hardy.train(student, algorithm=DISTIL, teacher=wrapped, steps=1, **of_python)
    assert student.lineage[0]["teachers"][0]["sha256"]


@pytest.mark.costly
def test_several_teachers_teach_their_mean(sections, files, tmp_path):
    one = {"run": str(files["run"])}
    full = {"algorithm": {**DISTIL, "resolution": "full"}}  # several have no coarse logits
    twice = weights(trained(sections, tmp_path / "twice", [one, one], **full))
    for name, value in weights(trained(sections, tmp_path / "once", one, **full)).items():
        torch.testing.assert_close(twice[name], value, rtol=1e-3, atol=1e-4)
    both = trained(sections, tmp_path / "both", [one, {"onnx": str(files["onnx"])}, {"run": str(files["other"])}])
    assert not same(weights(both), twice)
    assert [each["name"] for each in hardy.load(both).lineage[0]["teachers"]] == [
        "tiny",
        str(files["onnx"]),
        "tiny",
    ]


@pytest.mark.costly
def test_python_takes_a_list_of_runs_and_files(town, of_python, files):
    student = drawn(town, 3)
    hardy.train(student, algorithm=DISTIL, teacher=[files["run"], str(files["onnx"])], steps=1, **of_python)
    assert len(student.lineage[0]["teachers"]) == 2
    with pytest.raises(InputError, match="teacher: a list holds runs and files; save the network first"):
        hardy.train(student, algorithm=DISTIL, teacher=[drawn(town), files["run"]], steps=1, **of_python)


# ------------------------------------------------------------------------------------------------- precision and cache


@pytest.mark.costly
def test_the_measured_precision_is_kept_and_recorded(sections, places, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(teacher_precision, "faster", lambda *_: asked.append(1) or "bf16")
    teacher = {"run": str(places["run"]), "precision": "auto"}
    found = trained(sections, tmp_path / "run", teacher)
    assert len(asked) == 1
    (choice,) = json.loads((found / "teacher.json").read_text()).values()
    assert choice == "bf16"
    noted = records.read(found / "records.jsonl")[0].notes
    assert (noted["teacher"], noted["teacher_precision"]) == (str(places["run"]), "bf16")
    wanted = weights(trained(sections, tmp_path / "bf16", {**teacher, "precision": "bf16"}))
    assert same(weights(found), wanted)
    monkeypatch.setattr(teacher_precision, "faster", lambda *_: "fp32")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "teacher.json").write_text((found / "teacher.json").read_text())
    assert same(weights(trained(sections, tmp_path / "again", teacher)), wanted), "a resumed run keeps the choice"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"teacher\.precision: auto is measured in one process"):
        trained(sections, tmp_path / "parallel", teacher)


def test_a_measurement_chooses_by_time(town, monkeypatch):
    teacher = Teacher(drawn(town), "fp32")
    for times, wanted in (((2.0, 1.0), "bf16"), ((1.0, 0.97), "fp32"), ((1.0, 2.0), "fp32")):
        monkeypatch.setattr(
            teacher_precision,
            "interleave",
            lambda runs, *_, t=times: [run() or np.array([n]) for run, n in zip(runs, t, strict=True)],
        )
        assert teacher_precision.faster(teacher, (1, 3, 32, 48), torch.device("cpu")) == wanted


@pytest.mark.costly
def test_cells_of_a_study_share_what_the_teacher_computed(sections, places, pictures, tmp_path, monkeypatch):
    ran = []
    compute = Teacher._computed
    monkeypatch.setattr(Teacher, "_computed", lambda self, images: ran.append(len(images)) or compute(self, images))
    teacher, data = {"run": str(places["run"])}, {"unlabelled": [str(pictures)]}
    plain = weights(trained(sections, tmp_path / "plain", teacher, data=data))
    assert ran[:4] == [8] * 4
    alone = len(ran)  # the steps, and the images on which both are compared at the end
    cached = {**teacher, "cache_folder": str(tmp_path / "kept")}
    for name in ("first", "second"):
        assert same(weights(trained(sections, tmp_path / name, cached, data=data)), plain)
    assert len(ran) == 2 * alone, "the second cell computed nothing"
    wider = {"network": {"width": 16}, "data": data}
    trained(sections, tmp_path / "wider", cached, **wider)
    assert len(ran) == 2 * alone, "nor did another student"
    with pytest.raises(InputError, match=r"teacher\.cache_folder: .* of another teacher"):
        trained(sections, tmp_path / "third", {**cached, "run": str(places["other"])}, data=data)
    with pytest.raises(InputError, match=r"teacher\.cache_folder: .* for other data"):
        trained(sections, tmp_path / "fourth", cached)


# --------------------------------------------------------------------------------------------- the table, the lineage


@pytest.mark.costly
def test_the_table_is_shown_and_logged_before_the_first_step(sections, places, tmp_path, capsys):
    folder = trained(sections, tmp_path / "run", {"run": str(places["run"])})
    said = capsys.readouterr().err
    for row in (r"loss .* student .* teacher .* aligner", r"kl .* logits .* logits .* none", r"cwd .* logits"):
        assert re.search(row, said)
    assert "\x1b" not in said
    log = (folder / "train.log").read_text()
    assert log.index("distillation: kl | logits | logits | none") < log.index("train step 4")


@pytest.mark.costly
def test_the_artefact_says_what_it_learned_from_and_keeps_it(sections, places, pictures, town, tmp_path, capsys):
    made = sections(algorithm={**DISTIL, "losses": {"kl": {"weight": 2}}}, data={"unlabelled": [str(pictures)]})
    made |= {"network": {"name": "encoder_decoder", "classes": str(town), **ENCODED}}
    folder = train.run(from_values({**made, "teacher": {"run": str(places["run"])}}))
    (entry,) = json.loads((folder / "network.json").read_text())["lineage"]
    assert entry["options"]["losses"] == {"kl": {"weight": 2.0, "temperature": 1.0, "standardise": False}}
    assert entry["teachers"] == [
        {
            "name": "tiny",
            "from": str(places["run"]),
            "sha256": json.loads((places["run"] / "network.json").read_text())["sha256"],
            "classes": drawn(town).label_space.name,
        }
    ]
    assert (entry["images"], entry["unlabelled"]) == ({"folder/day": 11}, {str(pictures): 5})
    (scale,) = {one.notes["distillation_scale"] for one in records.read(folder / "records.jsonl")}
    assert 0 < scale <= 1
    assert f"distillation is scaled by {scale:.4g} " in (folder / "train.log").read_text()
    said = capsys.readouterr().out.replace("\n", "")
    assert f"learned by distillation (kl 2) from tiny of {places['run']} (sha256 " in said
    assert f"licence unknown), on images of folder/day (11), {pictures} (5)" in said
    cut = sections(prune=CUT, run={"folder": str(tmp_path / "pruned")})
    prune.run(from_values({**cut, "network": {"run": str(folder)}}), show=False)
    tuned = sections(run={"folder": str(tmp_path / "tuned")}, optim={"steps": 1})
    train.run(from_values({**tuned, "network": {"run": str(tmp_path / "pruned")}, "tuner": "frozen"}), show=False)
    for kept in ("pruned", "tuned"):
        assert hardy.load(tmp_path / kept).lineage == (entry,)
    hardy.save(hardy.load(folder, classes="camvid11"), tmp_path / "other")
    assert hardy.load(tmp_path / "other").lineage == (entry,)


@pytest.mark.costly
def test_the_lineage_names_the_usual_losses_too(sections, places, pictures, tmp_path, capsys):
    folder = trained(sections, tmp_path / "run", {"run": str(places["run"])})
    (entry,) = hardy.load(folder).lineage
    usual = {"kl": {"weight": 3.0, "temperature": 1.0, "standardise": False}}
    usual["cwd"] = {"weight": 3.0, "temperature": 4.0, "mask": False, "taps": []}
    assert json.loads(json.dumps(entry["options"]["losses"])) == usual
    assert "learned by distillation (kl 3, cwd 3) from tiny" in " ".join(lineage.lines([entry]))
    own = sections(
        algorithm={"name": "self_distillation"},
        data={"unlabelled": [str(pictures)]},
        run={"folder": str(tmp_path / "x")},
    )
    (entry,) = hardy.load(train.run(from_values(own), show=False)).lineage
    assert list(entry["options"]["losses"]) == ["kl"]


@pytest.mark.costly
def test_a_teachers_own_lineage_and_licence_go_on(sections, places, town, tmp_path):
    first = trained(sections, tmp_path / "first", {"run": str(places["run"])})
    network = hardy.load(first)
    network.architecture = {**network.architecture, "pretrained": {"licence": "CC0-1.0", "origin": "a test"}}
    hardy.save(network, tmp_path / "named")
    export(network, tmp_path / "net.onnx", size=(32, 48), dynamic=True, output="logits")
    for name, teacher in (("run", {"run": str(tmp_path / "named")}), ("onnx", {"onnx": str(tmp_path / "net.onnx")})):
        (entry,) = hardy.load(trained(sections, tmp_path / f"of_{name}", teacher)).lineage
        assert entry["teachers"][0]["licence"] == "CC0-1.0"
        assert entry["teachers"][0]["lineage"] == list(network.lineage)


def test_a_lineage_that_is_none_is_refused(places, tmp_path):
    description = json.loads((places["run"] / "network.json").read_text())
    description.pop("description_sha256")
    (tmp_path / "network.safetensors").write_bytes((places["run"] / "network.safetensors").read_bytes())
    for wrong in ("x", [1], [{"stage": "train"}], {"stage": 1}):
        (tmp_path / "network.json").write_text(json.dumps(sealed({**description, "lineage": wrong})))
        with pytest.raises(InputError, match="lineage: is not a list of what the network learned from"):
            hardy.load(tmp_path)


@pytest.mark.costly
def test_recovery_says_that_the_dense_network_taught(sections, town, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(prune, "costs", lambda *_: ([], []))
    dense = hardy.save(drawn(town, 1), tmp_path / "dense")
    made = sections(prune={**CUT, "recovery": 2, "recover_with": DISTIL}, run={"folder": str(tmp_path / "small")})
    with caplog.at_level(logging.INFO, logger="hardy"):
        prune.run(from_values({**made, "network": {"run": str(dense)}}), show=False)
    (entry,) = hardy.load(tmp_path / "small").lineage
    assert (entry["stage"], entry["teachers"][0]["from"]) == ("recover", "this run")
    assert "distillation: kl | logits | logits" in caplog.text
