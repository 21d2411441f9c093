"""A recipe is read, overridden, checked and written out complete, without torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hardy.errors import InputError
from hardy.recipe import from_values, read
from hardy.registry import LOSSES

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = {"network": {"name": "tiny"}, "data": {"sources": ["folder/day"]}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("network: {name: tiny}\ndata: {sources: [folder/day]}\n", encoding="utf-8")
    return path


def complaint(values=SMALL, *overrides):
    with pytest.raises(InputError) as caught:
        from_values(values, overrides, "r.yaml")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("r.yaml: ")
    return text


# ------------------------------------------------------------------------------------------------ what is refused


def test_an_unknown_key_is_named_with_the_nearest():
    assert "unknown key 'optim.momentun'; did you mean 'momentum'?; there are: name, steps" in complaint(
        SMALL, "optim.momentun=0.9"
    )
    assert "unknown key 'optin'; did you mean 'optim'?" in complaint({**SMALL, "optin": {}})
    assert "unknown key 'prune.ration'; did you mean 'ratio'?" in complaint(SMALL, "prune.ration=0.3")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("data.workers=2", "did you mean 'run.workers'?"),
        ("data.worker=2", "did you mean 'run.workers'?"),
        ("lr=1", "did you mean 'optim.lr' or 'prune.lr'?"),
        ("run.agreement=1", "did you mean 'adapt.guard.agreement'?"),
        ("run.sed=1", "did you mean 'seed'?"),
        ("run.name=x", ""),  # five sections have it
        ("run.quzzl=1", ""),
    ],
)
def test_a_key_of_another_section_is_named_with_its_section(override, hint):
    key = override.partition("=")[0]
    assert f"unknown key '{key}'; {hint}{'; ' if hint else ''}there are: " in complaint(SMALL, override)


def test_an_unknown_method_or_option_is_named_with_the_nearest():
    assert "there is no network 'tinny'; did you mean 'tiny'?" in complaint({**SMALL, "network": {"name": "tinny"}})
    assert "Tiny has no option 'widht'; did you mean 'width'?; it has: width, aux" in complaint(
        {**SMALL, "network": {"name": "tiny", "widht": 8}}
    )
    assert "there is no algorithm 'emr'" in complaint(SMALL, "algorithm.name=emr")
    assert "ERM has no option 'weight'; it has: none" in complaint(SMALL, "algorithm={name: erm, weight: 1}")
    assert "there is no loss 'cross'" in complaint(SMALL, "loss.name=cross")
    assert "there is no dataset 'foldr'; did you mean 'folder'?" in complaint(SMALL, "data.sources=[foldr/day]")
    assert "Folder has no option 'mask'" in complaint(SMALL, "data.datasets.folder.mask=x")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.steps=many", "optim.steps: "),
        ("optim.steps=0", "optim.steps: "),
        ("optim.steps=1.5", "optim.steps: "),
        ("optim.steps=true", "optim.steps: a truth value is not a number; give a number (got True)"),
        ("data.crop=[64, yes]", "data.crop: a truth value is not a number; give a number (got [64, True])"),
        ("network.width=true", "Tiny.width: a truth value is not a number; give a number (got True)"),
        ("algorithm={name: mixup, alpha: .inf}", "Mixup.alpha: input should be a finite number (got inf)"),
        ("optim.lr=-1", "optim.lr: "),
        ("optim.lr=.inf", "optim.lr: "),
        ("optim.lr=.nan", "optim.lr: "),
        ("optim.lr.x=1", "optim.lr: "),
        ("optim.schedule=step", "optim.schedule: "),
        ("data.crop=[64]", "data.crop.1 is missing"),
        ("data.crop=[64, 0]", "data.crop.1: input should be greater than 0 (got 0)"),
        ("data.holdout=1", "data.holdout: "),
        ("run.precision=int8", "run.precision: "),
        ("network.width=wide", "Tiny.width: "),
        ("network={name: tiny, run: runs/x}", "either a network's name or the folder of a run"),
        ("network=3", "network: "),
    ],
)
def test_a_wrong_value_is_named_with_its_key(override, said):
    assert said in complaint(SMALL, override)


def test_a_wrong_value_is_shown():
    assert complaint(SMALL, "optim.schedule=step").endswith("should be 'poly', 'cosine' or 'constant' (got 'step')")
    assert complaint(SMALL, "network.width=wide").endswith("(got 'wide')")


def test_a_missing_section_is_named():
    assert complaint({"network": {"name": "tiny"}}) == "r.yaml: data is missing"
    assert "either a network's name or the folder of a run" in complaint({"network": {}, "data": {}})


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    for name, content, said in (
        ("torn.yaml", b"network: {name: tiny", "not YAML"),
        ("empty.yaml", b"", "a recipe is a mapping of sections: network, data"),
        ("bytes.yaml", b"\xff\xfe\x00", "cannot be read"),
        ("gone.yaml", None, "cannot be read: No such file"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(f"{name}: {said}")):
            read(path)


# ------------------------------------------------------------------------------------------------------ overrides


def test_overrides_are_yaml_values_at_dotted_paths(file):
    made = read(
        file,
        [
            "optim.lr=1e-3",
            "data.crop=[64, 96]",
            "network.width=8",
            "prune.criterion.name=l2",
            "run.threads=null",
            "data.datasets.folder.root=a=b",
        ],
    )
    assert made.optim.lr == 0.001
    assert made.data.crop == (64, 96)
    assert made.network.options["width"] == 8
    assert made.prune.criterion.name == "l2"
    assert made.run.threads is None
    assert made.data.datasets["folder"]["root"] == "a=b"


def test_a_later_override_wins(file):
    assert read(file, ["optim.lr=0.1", "optim.lr=0.2"]).optim.lr == 0.2


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr:0.1", "run.folder=[1"])
def test_an_override_of_another_form_is_refused(file, text):
    with pytest.raises(InputError, match=re.escape(repr(text))):
        read(file, [text])


# ------------------------------------------------------------------------------------------ complete and repeatable


def test_every_default_is_written_out(file):
    made = read(file, ["prune.ratio=0.3", "loss.name=ohem"])
    values = made.model_dump(mode="json")
    assert values["network"]["width"] == 32
    assert values["network"]["aux"] is False
    assert list(values["loss"]) == ["name", *(option.name for option in LOSSES.describe("ohem").options)]
    assert values["data"]["datasets"] == {"folder": {"mask_ending": "", "palette": "agree"}}
    assert values["prune"]["criterion"]["name"] == "ior"
    assert len(values["prune"]["criterion"]) > 1
    assert made.completed() == made


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_written_recipe_reads_back_the_same(path, tmp_path):
    made = read(path)
    made.write(tmp_path / "run" / "recipe.yaml", {"hardy": "0.1.0", "commit": "abc"})
    again = read(tmp_path / "run" / "recipe.yaml")
    assert again == made
    assert again.digest() == made.digest()
    text = (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    assert text.startswith("# hardy: 0.1.0\n# commit: abc\n")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_a_recipe_is_written_whole_or_not_at_all(file, tmp_path, monkeypatch):
    made = read(file)
    target = tmp_path / "out" / "recipe.yaml"
    made.write(target, {})
    before = target.read_bytes()

    def full(*places):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        read(file, ["optim.lr=1"]).write(target, {})
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_the_digest_names_what_changes_the_result_and_nothing_else(file):
    digest = read(file).digest()
    assert re.fullmatch("[0-9a-f]{12}", digest)
    for same in (
        "run.seed=7",
        "run.folder=elsewhere",
        "run.device=cpu",
        "run.workers=0",
        "run.threads=1",
        "data.root=/data",
        "data.datasets.folder.root=/photos",
        "run.log_every=1",
        "run.checkpoint_every=2",
        "data.datasets.folder.mask_ending=''",
    ):
        assert read(file, [same]).digest() == digest, same
    for other in (
        "optim.lr=0.02",
        "network.width=16",
        "data.crop=[32, 32]",
        "loss.name=ohem",
        "run.precision=bf16",
        "run.channels_last=true",
        "data.datasets.folder.mask_ending=_m",
        "evaluate.select=last",
        "prune.ratio=0.5",
    ):
        assert read(file, [other]).digest() != digest, other


def test_a_recipe_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        from_values(SMALL).optim.lr = 1.0


@pytest.mark.costly
def test_reading_a_recipe_and_making_the_schema_import_no_torch(file):
    code = (
        "import sys; from hardy import recipe, records, schema; "
        f"recipe.read({str(file)!r}, ['prune.ratio=0.5']).digest(); schema.schema(); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_overridden_choice_takes_the_place_of_the_whole_choice(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "network: {name: fast_scnn, classes: camvid11, aux: true}\n"
        "data: {sources: [streets/sim]}\n"
        "prune: {criterion: {name: ior, alpha: 2.0}, ratio: 0.3}\n",
        encoding="utf-8",
    )
    other = read(file, ["network.name=tiny", "prune.criterion.name=taylor"])
    assert (other.network.name, other.network.classes) == ("tiny", "camvid11")
    assert other.network.options == {"width": 32, "aux": False}
    assert other.prune is not None
    assert other.prune.criterion.options == {"square": "before", "skip": "none", "gates": "unit", "accumulate": 1}
    assert other.prune.ratio == 0.3
    again = read(file, ["network.run=runs/x"])
    assert (again.network.run, again.network.name, again.network.options) == ("runs/x", "", {})
    same = read(file, ["prune.criterion.name=ior", "network.name=fast_scnn"])
    assert same == read(file)
