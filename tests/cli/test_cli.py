"""Every verb says what it does; and the whole story on drawn streets, from ``init`` to ``doctor``, word by word."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from typer.main import get_command

import hardy
from hardy import recipe, records
from hardy.cli import app
from hardy.commands import doctor
from hardy.deployment.runner import Runner, read_table

VERBS = get_command(app).commands
SCREEN = re.search(
    r"^## The command line in one screen\n\n```text\n(.*?)^```",
    (Path(__file__).parents[2] / "docs" / "index.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
).group(1)
SIZE = "32x64"
STREETS = {"streets": {"size": [32, 64], "train": 4, "val": 1, "test": 1}}
FEW = [
    word
    for key, value in (("size", "[32,64]"), ("train", 1), ("val", 0), ("test", 0))
    for word in ("--dataset", f"streets.{key}={value}")
]


# ------------------------------------------------------------------------------------------------------ the words


def test_the_screen_of_the_docs_has_every_verb_and_no_other():
    assert {line.split()[1] for line in SCREEN.splitlines() if line} == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_shows_every_argument_and_option(call, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = call(verb, "--help")
    assert said.code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", said.out)
    assert VERBS[verb].help.split(":")[0] in text
    for parameter in VERBS[verb].params:
        shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name
        assert shown in text.lower(), f"{verb} --help does not name {shown}"
        assert parameter.name == "help" or parameter.help, f"{verb}: {shown} is not explained"


@pytest.mark.parametrize("line", [line for line in SCREEN.splitlines() if line])
def test_the_line_of_a_verb_in_the_readme_is_one_it_takes(line):
    words = line.split("  ")[0].split()
    verb, rest = words[1], [word.strip("[]") for word in words[2:] if "..." not in word]
    options = {name for parameter in VERBS[verb].params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options
    taken = [parameter for parameter in VERBS[verb].params if parameter.param_type_name == "argument"]
    given = [word for word in rest if not word.startswith("--")]
    assert len(given) <= len(taken) or taken[-1].nargs == -1 or "--against" in rest


def test_hardy_alone_is_its_help_and_its_version_one_line(call):
    alone = call()
    assert alone.code == 0
    assert alone.out == call("--help").out
    assert all(verb in alone.out for verb in VERBS)
    assert call("--version") == (0, f"hardy {hardy.__version__}\n", "")


def test_list_shows_source_options_and_defaults(call):
    said = call("list", "criterion")
    text = said.out
    assert said.code == 0
    ior = text.split("\n  ior  ")[1].split("\n  l1  ")[0]
    assert "Source: Cai, Li and Kot" in ior
    assert "arXiv:2210.13810, eq. 4" in ior
    assert "alpha: float = 1.0" in ior
    assert "variance: Literal['population', 'sample'] = 'population'" in ior
    assert "\n  tiny  " not in text
    assert "\n  tiny  " in call("list").out


@pytest.fixture
def shell(monkeypatch, capsys):
    """``shell(HARDY_COMPLETE="source_bash")``: what the command prints to a shell that sets these variables."""

    def asked(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"_{name}", value)
        with pytest.raises(SystemExit) as left:
            app(args=[], prog_name="hardy")
        assert left.value.code == 0
        return capsys.readouterr().out

    return asked


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("bash", r"^complete -o default -F _hardy_completion hardy$"),
        ("zsh", r"^compdef _hardy_completion hardy$"),
        ("fish", r"^complete (?=.*--no-files).*\bhardy\b"),
    ],
)
def test_the_shell_gets_a_completion_script(shell, name, line):
    script = shell(HARDY_COMPLETE=f"source_{name}")
    assert re.search(line, script, re.MULTILINE)
    assert f"_HARDY_COMPLETE=complete_{name}" in script


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("pr",), {"prune", "predict"}),
        (("predict", "--over"), {"--overlay"}),
        (("list", "cri"), {"criterion"}),
        (("train", "x.yaml", "prune.crit"), {"prune.criterion.name="}),
        (("train", "x.yaml", "optim.step"), {"optim.steps="}),
        (("train", "x.yaml", "optim.lr=1", "algorithm.name", "=", "dis"), {"distillation"}),
        (("prune", "x.yaml", "data.cache", "="), {"true", "false"}),
        (("evaluate", "runs/x", "camvid/day", "retin"), {"retina"}),
        (("predict", "runs/x", "in", "out", "adapt.name", "=", "tent"), {"tent"}),
        (("evaluate", "runs/x", "camvid", "optim.st"), set()),
    ],
)
def test_what_the_shell_completes(shell, monkeypatch, typed, expected):
    monkeypatch.setenv("COMP_WORDS", " ".join(["hardy", *typed]))  # bash takes PATH=VALUE for three words
    monkeypatch.setenv("COMP_CWORD", str(len(typed)))
    assert {*shell(HARDY_COMPLETE="complete_bash").split()} == expected


def test_a_shell_that_keeps_an_override_as_one_word_completes_its_value(shell):
    words = "hardy train x.yaml algorithm.name=dis"
    said = shell(HARDY_COMPLETE="complete_fish", TYPER_COMPLETE_FISH_ACTION="get-args", TYPER_COMPLETE_ARGS=words)
    assert said.split() == ["algorithm.name=distillation"]


# ------------------------------------------------------------------------------------------------------ the story


@pytest.fixture(scope="module")
def home(call, tmp_path_factory) -> Path:
    """A folder in which ``hardy init`` was called; its recipe now is one of three steps on small drawn streets."""
    folder = tmp_path_factory.mktemp("story")
    assert call("init", "--to", folder).code == 0
    file = folder / "recipe.yaml"
    values = yaml.safe_load(file.read_text())
    values["network"] = {"name": "tiny", "classes": "cityscapes19", "width": 8}
    values["data"] = {
        "sources": ["streets/sim", "streets/day"],
        "unseen": ["streets/night"],
        "unseen_splits": ["test"],
        "datasets": STREETS,
        "crop": [32, 64],
    }
    values["optim"] |= {"steps": 3, "batch": 4}
    values["run"] |= {"folder": str(folder / "runs" / "dense"), "workers": 0, "device": "cpu"}
    file.write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def dense(call, home) -> tuple[Path, tuple[int, str, str]]:
    """The folder that ``hardy train`` left, and what it said."""
    return home / "runs" / "dense", call("train", home / "recipe.yaml")


@pytest.fixture(scope="module")
def small(call, home, dense) -> tuple[Path, tuple[int, str, str]]:
    """The folder that ``hardy prune`` left, and what it said."""
    folder = home / "runs" / "small"
    settings = [
        "prune.ratio=0.3",
        "prune.criterion.name=ior",
        "prune.schedule.every=1",
        "prune.min_width=2",
        "prune.recovery=1",
        f"network={{run: {dense[0]}}}",
        f"run.folder={folder}",
    ]
    return folder, call("prune", home / "recipe.yaml", *settings)


def numbers(folder: Path, stage: str) -> dict[tuple[str, str], float | None]:
    """What the records of ``folder`` say, by target and metric."""
    return {(r.target, r.metric): r.value for r in records.read(folder / "records.jsonl") if r.stage == stage}


def test_init_writes_a_recipe_that_is_checked_and_its_schema(call, tmp_path):
    said = call("init", "--to", tmp_path / "first")
    assert (said.code, said.err) == (0, "")
    assert "hardy train" in said.out
    assert recipe.read(tmp_path / "first" / "recipe.yaml").network.name == "fast_scnn"
    text = (tmp_path / "first" / "recipe.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert "properties" in json.loads((tmp_path / "first" / "recipe.schema.json").read_text())


@pytest.mark.costly
def test_train(call, dense):
    folder, said = dense
    assert (said.code, said.err) == (0, "")
    assert re.search(r"streets/night .* unseen .* 1 ", said.out)
    kept = {path.name for path in folder.iterdir()}
    assert kept >= {"network.json", "network.safetensors", "recipe.yaml", "records.jsonl", "train.log"}
    assert not {"checkpoint.safetensors", "best.safetensors"} & kept
    found = numbers(folder, "train")
    assert {"intra", "unseen", "worst", "gap", "streets/sim", "streets/day", "streets/night"} == {
        target for target, metric in found if metric == "miou"
    }
    again = call("train", folder / "recipe.yaml")
    assert again.out == f"{folder}: this run is finished; give another run.folder to run it again\n"


@pytest.mark.costly
def test_evaluate(call, dense):
    folder, _ = dense
    said = call("evaluate", folder, "streets/fog", "streets/rain", *FEW, "--per-class", "--flip")
    assert (said.code, said.err) == (0, "")
    assert all(word in said.out for word in ("streets/fog", "streets/rain", "worst unseen", "IoU % per class"))
    found = numbers(folder, "evaluate")
    assert found["worst", "miou"] == min(found["streets/fog", "miou"], found["streets/rain", "miou"])


@pytest.mark.costly
def test_prune(dense, small):
    folder, said = small
    assert (said.code, said.err) == (0, "")
    assert re.search(r"\d+% of filters removed( \(asked for: 30%\))? by ior", said.out)
    assert re.search(r"eager: (NOT FASTER|faster): takes \d\.\d\d of the time", said.out)
    found = numbers(folder, "prune")
    for network, when in ((hardy.load(dense[0]), "before"), (hardy.load(folder), "after")):
        assert found["cost", f"parameters_{when}"] == sum(p.numel() for p in network.parameters())
    assert found["cost", "parameters_after"] < found["cost", "parameters_before"]
    assert found["cost", "gmacs_after"] < found["cost", "gmacs_before"]
    assert found["cost", "milliseconds_p50_eager_after"] > 0


@pytest.mark.costly
def test_bench(call, dense, small):
    said = call("bench", small[0], "--against", dense[0], "--size", SIZE, "--runs", "2", "--batch", "2")
    assert (said.code, said.err) == (0, "")
    assert all(str(run[0]) in said.out for run in (small, dense))
    assert "GMACs at 32x64" in said.out
    found = numbers(small[0], "bench")
    for runtime in ("eager", "onnxruntime"):
        assert 0 < found[runtime, "milliseconds_least"] <= found[runtime, "milliseconds_p95"]
        assert min(found[runtime, "ratio"], found[runtime, "milliseconds_p50_against"]) > 0
    assert records.read(small[0] / "records.jsonl")[-1].notes["against"] == str(dense[0])


@pytest.mark.costly
def test_bench_of_forms(call, small):
    said = call("bench", small[0], "--size", SIZE, "--runs", "1", "--fold", "--dtype", "bfloat16", "--threads", "1")
    assert (said.code, said.err) == (0, "")
    assert "16 of 16 batch norms folded: the same classes on 2 random images" in said.out
    assert "bfloat16: the class of float32 on" in said.out
    assert "eager, folded, bfloat16: timed: normalisation, network, upsampling, argmax (bfloat16, batch" in said.out
    assert "1 runs after 5" in said.out
    found = numbers(small[0], "bench")
    assert found["eager, folded, bfloat16", "milliseconds_p50"] > 0


@pytest.mark.costly
def test_export_at_half_size(call, small, tmp_path):
    said = call("export", small[0], tmp_path / "half.onnx", "--size", SIZE, "--upsample", "half")
    assert (said.code, said.err) == (0, "")
    assert "upsample half: " in said.out
    assert 0.5 < numbers(small[0], "export")["", "agreement_full"] <= 1.0
    refused = call("export", small[0], tmp_path / "half.onnx", "--size", SIZE, "--upsample", "quarter")
    assert refused == (2, "", "hardy: there is no upsample 'quarter'; there are: full, borders, half, none\n")


@pytest.mark.costly
def test_export_with_prototypes(call, small, tmp_path):
    file, options = tmp_path / "live.onnx", ("--size", SIZE, "--images", 2, "--logits", "--statistics", "inputs")
    said = call("export", small[0], file, *options, "--prototypes", "streets/night", "--prototypes", "streets/fog")
    assert (said.code, said.err) == (0, "")
    table = tmp_path / "live.prototypes.safetensors"
    assert f"{table}: the statistics of source, streets/night, streets/fog" in said.out
    images, runner = np.full((1, 3, 32, 64), 0.25, np.float32), Runner(file)
    source = runner(images)
    network = hardy.load(small[0]).eval()
    with torch.no_grad():
        assert np.abs(source - network(torch.from_numpy(images)).numpy()).max() < 1e-4
    runner.use("streets/night")
    assert np.abs(runner(images) - source).max() > 1e-3
    assert read_table(table).counts == {"source": 0, "streets/night": 2, "streets/fog": 2}
    assert records.read(small[0] / "records.jsonl")[-1].notes["prototypes"] == ["streets/night", "streets/fog"]


@pytest.mark.costly
def test_export(call, small, tmp_path):
    file = tmp_path / "small.onnx"
    said = call("export", small[0], file, "--size", SIZE)
    assert (said.code, said.err) == (0, "")
    assert "proven in onnxruntime on 4 random images: 100.0000% of pixels agree" in said.out
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (classes,) = session.run(None, {"images": np.zeros((1, 3, 32, 64), np.float32)})
    assert (classes.dtype, classes.shape) == (np.uint8, (1, 32, 64))
    assert numbers(small[0], "export")["", "agreement"] == 1.0


@pytest.mark.costly
def test_quantize(call, dense, tmp_path):
    file = tmp_path / "int8.onnx"
    words = ("quantize", dense[0], file, "--size", SIZE, "--images", "1", "--limit", "100")
    said = call(*words, "--json")
    assert (said.code, said.err) == (0, "")
    report = json.loads(said.out)
    assert {drop["domain"] for drop in report["drops"]} == {"streets/sim", "streets/day", "streets/night"}
    assert report["calibrated"] == {"streets/sim": 1, "streets/day": 1}
    found = numbers(dense[0], "quantize")
    for drop in report["drops"]:
        assert found[drop["domain"], "miou_int8"] == drop["after"]
        assert drop["points"] == pytest.approx(100 * (drop["before"] - drop["after"]))
    made = hardy.quantize(dense[0], tmp_path / "again.onnx", size=(32, 64), images=1, limit=100)
    assert [vars(drop) | {"points": drop.points} for drop in made.drops] == report["drops"]
    assert [r.stage for r in records.read(dense[0] / "records.jsonl")].count("quantize") == 2 * len(found)
    refused = call("quantize", dense[0], file, "pacs", "--images", "1", "--root", tmp_path)
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1


def test_predict(call, dense, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(tmp_path / "photos" / "one.jpg")
    said = call("predict", dense[0], tmp_path / "photos", tmp_path / "masks", "--overlay")
    assert said == (0, f"wrote 1 mask to {tmp_path}/masks\n", "")
    mask = Image.open(tmp_path / "masks" / "one.png")
    assert (mask.mode, mask.size) == ("P", (60, 40))
    assert np.array(mask).max() < 19
    assert len(list((tmp_path / "masks").iterdir())) == 2


@pytest.mark.costly
def test_runs(call, home, dense, small):
    said = call("runs", home / "runs")
    assert said.code == 0
    assert {str(dense[0]), str(small[0])} <= set(said.out.split())


@pytest.mark.costly
def test_data_and_doctor(call, home, town):
    said = call("data", "folder", "--root", town)
    assert said.code == 0
    assert "folder/night" in said.out
    assert "every label was read: each id is in the map" in said.out
    said = call("doctor", "--root", home)
    assert said.code == 0
    assert all(word in said.out for word in ("torch", "onnxruntime", "streets", "camvid", "found", "threads", "device"))
    assert "export to ONNX and prove" in said.out
    assert said.out.endswith("everything works\n")


@pytest.mark.costly
def test_the_doctor_names_the_step_that_fails(call, home, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(doctor, "prune", broken)
    said = call("doctor", "--root", home)
    assert (said.code, said.err) == (1, "")
    assert said.out.endswith("\nprune: RuntimeError: no such thing\n")
    assert "save and load" not in said.out
    monkeypatch.setattr(doctor, "self_test", broken)
    assert "self-test" not in call("doctor", "--root", home, "--no-test").out
