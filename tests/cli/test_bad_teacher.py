"""Teachers that cannot be learned from, and images without labels that cannot be used: one line, exit code 2."""

import sys

import pytest
import torch
import yaml

import hardy
import hardy.distillation
from hardy.deployment.export import export
from hardy.networks.building.create import create


@pytest.fixture(scope="module")
def other(town, tmp_path_factory):
    """A teacher with the town's classes less one."""
    return hardy.save(create("tiny", "camvid11", width=8), tmp_path_factory.mktemp("other"))


@pytest.fixture
def distil(recipe):
    """``distil({"run": ...}, losses)``: a recipe that distils from a teacher."""

    def write(teacher, losses=None, **sections):
        chosen = {"algorithm": {"name": "distillation", **({"losses": losses} if losses else {})}, **sections}
        file = recipe(**chosen)

        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        file.write_text(yaml.safe_dump({**values, "teacher": teacher}), encoding="utf-8")
        return file

    return write


FEATURES = '''"""The mean difference of the mean features.

Source: written by a test.
"""
from collections.abc import Sequence

from hardy.distillation.base import DistillationLoss

class Means(DistillationLoss):
    def __init__(self, matching, *, weight: float = 1.0, taps: Sequence[str] = ("deepest",)):
        super().__init__(weight)
        self.pairs = matching.pairs(taps, "Means.taps")

    def forward(self, outputs):
        values = [outputs.features(pair) for pair in self.pairs]
        return sum((student.mean() - teacher.mean()).abs() for student, teacher in values)
'''


@pytest.fixture
def features(tmp_path, monkeypatch):
    """The name of a loss of features."""
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "means.py").write_text(FEATURES)
    monkeypatch.setattr(hardy.distillation, "__path__", [*hardy.distillation.__path__, str(tmp_path / "losses")])
    yield "means"
    sys.modules.pop("hardy.distillation.means", None)


@pytest.fixture(scope="module")
def onnx(trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "net.onnx"
    export(hardy.load(trained), file, size=(32, 32), dynamic=True, output="logits")
    return file


def test_a_teacher_of_other_classes_lists_those_that_it_lacks(refused, distil, other):
    said = refused("train", distil({"run": str(other)}))
    assert "teacher: it predicts camvid11 and lacks 1 of the 3 classes of " in said
    assert ": wall; name a teacher that predicts them" in said


@pytest.mark.costly
def test_two_stages_end_with_such_a_teacher_and_say_that_it_is_not_compared(call, recipe, other, caplog):
    file = recipe(algorithm={"name": "two_stage"}, teacher={"run": str(other)})
    result = call("train", file)
    assert result.code == 0
    assert "no agreement with the teacher is measured: it predicts camvid11" in caplog.text


def test_a_tap_that_is_not_there_names_the_nearest(refused, distil, trained, features):
    said = refused("train", distil({"run": str(trained)}, {features: {"taps": ["deatil"]}}))
    assert "the student, Tiny, has no 'deatil'; did you mean 'detail'?" in said
    assert "there are: " in said


@pytest.mark.costly
def test_a_loss_of_features_needs_a_teacher_that_has_them(refused, distil, trained, onnx, features, tmp_path):
    for teacher in (
        {"onnx": str(onnx)},
        [{"run": str(trained)}, {"run": str(trained)}],
        {"run": str(trained), "cache_folder": str(tmp_path / "kept")},
    ):
        said = refused("train", distil(teacher, {features: {}}), leaving={"about.json"})
        assert "compares features, and the teacher gives only logits" in said


@pytest.mark.costly
def test_a_cache_of_another_teacher_or_data_set(refused, call, distil, trained, town, tmp_path):
    teacher = {"run": str(trained), "cache_folder": str(tmp_path / "kept")}
    assert call("train", distil(teacher)).code == 0
    again = {"folder": str(tmp_path / "again")}
    other = hardy.save(create("tiny", town, width=8), tmp_path / "other")
    said = refused("train", distil({**teacher, "run": str(other)}, run=again))
    assert said.startswith(f"teacher.cache_folder: {tmp_path / 'kept'} holds the outputs of another teacher (")
    said = refused("train", distil(teacher, run=again, data={"sources": ["streets/sim"]}, network=NETWORK))
    assert f"{tmp_path / 'kept'} holds outputs for other data (folder, not streets); give another folder" in said


NETWORK = {"name": "tiny", "width": 16, "classes": "camvid11"}


@pytest.mark.costly
def test_nan_from_the_teacher(refused, call, distil, trained, tmp_path):
    network = hardy.load(trained)
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    bad = hardy.save(network, tmp_path / "bad")
    said = refused("train", distil({"run": str(bad)}))
    assert said.startswith("teacher.run: ")
    assert "head.bias" in said
    with torch.no_grad():
        network.head.bias[0] = 3e38
        network.head.weight.fill_(3e38)
    bad = hardy.save(network, tmp_path / "overflows")
    said = call("train", distil({"run": str(bad)}))
    assert said.code == 2
    *table, last = said.err.splitlines()
    assert last == "hardy: teacher: its logits are not finite on a batch; check its weights or its precision"
    assert "Traceback" not in said.err
    assert any("teacher" in line for line in table), "what is compared is shown before"


def test_the_run_itself_as_teacher(refused, distil, tmp_path):
    for place in (tmp_path / "run", tmp_path / "x" / ".." / "run"):
        said = refused("train", distil({"run": str(place)}))
        assert said == f"teacher.run: {place} is the folder of this run itself; name an earlier run"


def test_sections_and_folders_that_cannot_be_used(refused, distil, trained, tmp_path):
    teacher = {"run": str(trained)}
    (tmp_path / "empty").mkdir()
    for values, more, said in (
        ([], {}, "teacher: list should have at least 1 item"),
        ([teacher, {"rnu": "x"}], {}, "unknown key 'teacher.1.rnu'; did you mean 'run'?"),
        ({**teacher, "size": [8, 64]}, {}, "teacher.size: 8x64 pixels, but Tiny needs at least 16 on each side"),
        ({**teacher, "cache_mb": 0}, {}, "teacher.cache_mb: input should be greater than 0"),
        ([teacher, {"run": str(tmp_path / "none")}], {}, "none: no network.json here"),
        (teacher, {"data": {"unlabelled": [str(tmp_path / "none")]}}, "data.unlabelled: "),
        (teacher, {"data": {"unlabelled": [str(tmp_path / "empty")]}}, "empty contains no images"),
        (teacher, {"data": {"unlabelled_batch": 2}}, "data.unlabelled_batch: 2 has no effect"),
    ):
        assert said in refused("train", distil(values, **more))


def test_losses_that_are_none(refused, distil, trained):
    for losses, said in (
        ({"kll": {}}, "there is no distillation 'kll'; did you mean 'kl'?"),
        ({"kl": {"tempreature": 2}}, "KL has no option 'tempreature'; did you mean 'temperature'?"),
        ({"kl": {"weight": "much"}}, "KL.weight: "),
    ):
        assert said in refused("train", distil({"run": str(trained)}, losses))
