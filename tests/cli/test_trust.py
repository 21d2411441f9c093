"""No file runs code: every place where text of a file becomes an import, each tried with one that leaves a mark."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

import hardy
from hardy.errors import InputError
from hardy.networks.building.wrapped import Wrapped
from hardy.networks.styles.dsp import first_layers, save_dsp
from hardy.ops.dsp import Perturbation
from hardy.ops.style_vae import DVAE, mirror
from hardy.stored import sealed

STRANGER = '''"""Leaves a mark when it is imported.

Source: a stranger.
"""
from pathlib import Path
import torch
from hardy.algorithms.erm import ERM
from hardy.networks.building.wrapped import Wrapped
Path({mark!r}).touch()

def make():
    return torch.nn.Conv2d(3, 3, 1)

class Net(Wrapped):
    def __init__(self, labels, *, wide: int = 1):
        super().__init__(labels, make())

class Learn(ERM):
    def __init__(self, network, pixel_loss):
        super().__init__(network, pixel_loss)
'''

ALLOWED = {
    "hardy/__init__.py": "__getattr__",  # one of the public names
    "hardy/blocks/base.py": "costed",  # the modules of a package of Hardy's
    "hardy/commands/doctor.py": "_steps",  # names written there
    "hardy/commands/output/costs.py": "costs",  # names written there
    "hardy/data/datasets/corrupted.py": "_package",  # the name written there
    "hardy/data/parts.py": "_package",  # the name written there
    "hardy/deployment/graph.py": "package",  # names written where it is called
    "hardy/deployment/openvino_session.py": "_package",  # the name written there
    "hardy/engine/tracking.py": "_start",  # the name written there
    "hardy/engine/videos.py": "_package",  # the name written there
    "hardy/networks/building/wrapped.py": "_made_by",  # asks `permit`
    "hardy/registry.py": "describe, get, _source_of, interface, folders",  # asks `permit`
    "hardy/report/pareto.py": "_plotly",
}
"""Every file that imports by a name it was given, and where in it."""


@pytest.fixture(autouse=True)
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file whose presence means that the stranger's code ran; its modules could be imported from here."""
    file, place = tmp_path / "ran", tmp_path / "theirs"
    (place / "stranger_package").mkdir(parents=True)
    text = STRANGER.format(mark=str(file))
    for name in ("stranger.py", "stranger_package/__init__.py", "stranger_package/inner.py"):
        (place / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(place)
    monkeypatch.chdir(place)
    yield file
    for name in [name for name in sys.modules if name.startswith("stranger")]:
        del sys.modules[name]


def described(trained: Path, folder: Path, **changes: object) -> Path:
    """A copy of a saved network whose description says something else, with a right checksum."""
    folder.mkdir(parents=True)
    values = json.loads((trained / "network.json").read_text(encoding="utf-8")) | changes
    values.pop("description_sha256")
    (folder / "network.json").write_text(json.dumps(sealed(values)), encoding="utf-8")
    (folder / "network.safetensors").write_bytes((trained / "network.safetensors").read_bytes())
    return folder


ARCHITECTURES = {
    "class": {"name": "stranger:Net", "options": {}},
    "class in a package": {"name": "stranger_package.inner:Net", "options": {}},
    "factory": {"name": "wrapped", "options": {"factory": "stranger:make"}},
    "decoder": {"name": "encoder_decoder", "options": {"encoder": "resnet18", "decoder": "stranger:Net"}},
    "exit": {"name": "wrapped", "options": {"factory": "sys:exit"}},
    "abort": {"name": "wrapped", "options": {"factory": "os:abort"}},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_saved_network_runs_no_code(architecture, trained, mark, tmp_path, refused, recipe, town):
    folder = described(trained, tmp_path / "net", architecture=architecture)
    module = str(architecture["options"].get("factory") or architecture["name"]).partition(":")[0]
    module = "stranger" if architecture["name"] == "encoder_decoder" else module
    with pytest.raises(InputError) as caught:
        hardy.load(folder)
    said = f"is named in a file and would run code of module '{module}'; to allow that in this call: "
    assert f"{said}--trust {module}, in Python trust=['{module}']" in str(caught.value)
    for words in (
        ("evaluate", folder, "folder/day", "--root", town),
        ("predict", folder, town, tmp_path / "masks"),
        ("bench", folder),
        ("bench", trained, "--against", folder),
        ("export", folder, tmp_path / "x.onnx"),
        ("train", recipe(network={"run": str(folder)}), "prune=null"),
        ("prune", recipe(network={"run": str(folder)}, prune={"ratio": 0.3})),
    ):
        assert said in refused(*words, leaving={"recipe.yaml"}), words
    assert not mark.exists()


def section_values(town: Path) -> dict[str, dict[str, object]]:
    named = {"name": "stranger:Learn"}
    return {
        "network": {"network": {"name": "stranger:Net", "classes": str(town)}},
        "decoder": {"network": {"name": "encoder_decoder", "encoder": "resnet18", "decoder": "stranger:Net"}},
        "algorithm": {"algorithm": named},
        "algorithm by its name": {"algorithm": "stranger:Learn"},
        "package": {"algorithm": "stranger_package.inner:Learn"},
        "loss": {"loss": named},
        "criterion": {"prune": {"criterion": named}},
        "schedule": {"prune": {"schedule": "stranger:Learn"}},
        "recovery": {"prune": {"recover_with": named, "recovery": 1}},
        "sources": {"data": {"sources": ["stranger:Net/day"]}},
        "unseen": {"data": {"unseen": ["stranger:Net"]}},
        "datasets": {"data": {"datasets": {"stranger:Net": {"wide": 2}}}},
        "stop": {"prune": {"stop": {"domains": ["stranger:Net/day"]}}},
    }


@pytest.fixture
def recipe_with(recipe: Callable[..., Path], town: Path) -> Callable[[str], Path]:
    """``recipe_with("loss")``: a recipe's file that names the stranger there."""

    def write(place: str) -> Path:
        file = recipe(prune={"ratio": 0.3})
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        for section, settings in section_values(town)[place].items():
            mapping = isinstance(settings, dict) and section != "network"
            values[section] = {**values.get(section, {}), **settings} if mapping else settings
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return file

    return write


@pytest.mark.parametrize("place", section_values(Path()))
def test_a_recipe_runs_no_code(place, recipe_with, refused, mark):
    file = recipe_with(place)
    for verb in ("train", "prune", "search"):
        assert "is named in a file and would run code of module 'stranger" in refused(verb, file)
    assert not mark.exists()


@pytest.mark.parametrize("where", ["recipe", "set", "grid", "left out"])
def test_a_study_runs_no_code(where, recipe_with, recipe, refused, tmp_path, mark):
    file = recipe_with("loss") if where == "recipe" else recipe()
    values: dict[str, object] = {"key": "loss.name", "values": ["stranger:Learn"]}
    grid = {
        "grid": values,
        "left out": {"leave_out": ["stranger:Net"]},
        "set": {"key": "run.seed", "values": [0]},
        "recipe": {"key": "run.seed", "values": [0]},
    }
    stage = {"verb": "train", "recipe": str(file), "set": {"loss": "stranger:Learn"} if where == "set" else {}}
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"stages": {"a": stage}, "grid": {"axis": grid[where]}}), encoding="utf-8")
    for words in (("study", study), ("study", study, "--dry-run")):
        assert "is named in a file and would run code of module 'stranger'" in refused(*words)
    assert not mark.exists()


def test_what_lies_in_a_run_folder_runs_no_code(recipe_with, trained, recipe, refused, tmp_path, town, mark):
    run = described(trained, tmp_path / "run")
    (run / "recipe.yaml").write_text(recipe_with("loss").read_text(encoding="utf-8"), encoding="utf-8")
    words = [("evaluate", run, "folder/day", "--root", town), ("train", recipe())]
    for verb in words:
        assert "would run code of module 'stranger'" in refused(*verb, leaving={"recipe.yaml", "network.json"})
    assert not mark.exists()


def test_a_pruning_that_goes_on_runs_no_code(trained, recipe, refused, tmp_path, mark):
    described(trained, tmp_path / "run" / "dense", architecture=ARCHITECTURES["factory"])
    line = refused("prune", recipe(prune={"ratio": 0.3}), leaving={"recipe.yaml", "train.log"})
    assert "would run code of module 'stranger'" in line
    assert not mark.exists()


@pytest.mark.parametrize("section", [{"algorithm": {"name": "dsp"}}, {"prune": {"criterion": {"name": "npdg"}}}])
def test_a_style_artefact_runs_no_code(section, recipe, trained, refused, tmp_path, mark, town):
    network = hardy.load(trained)
    width = first_layers(network, 4).channels
    whole = Perturbation(
        first_layers(network, 4), DVAE(width).decoder, mirror(width, 4), torch.zeros(width), torch.eye(width)
    )
    file = save_dsp(whole, tmp_path / "style") / "style.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values.pop("description_sha256")
    values["encoder"]["architecture"] = ARCHITECTURES["factory"]
    file.write_text(json.dumps(sealed(values)), encoding="utf-8")
    (name, settings), *_ = section.items()
    choice = settings.get("criterion", settings)
    choice["style"] = str(tmp_path / "style")
    verb = "train" if name == "algorithm" else "prune"
    chosen = {**section, "prune": {"ratio": 0.3, **section["prune"]}} if verb == "prune" else section
    line = refused(verb, recipe(**chosen, network={"run": str(trained)}), leaving={"recipe.yaml", "train.log"})
    assert "factory 'stranger:make' is named in a file" in line
    data = {"sources": ["folder/day"], "root": str(town), "crop": [32, 32]}
    with pytest.raises(InputError, match="factory 'stranger:make' is named in a file"):
        hardy.train(network, data=data, algorithm={"name": "dsp", "style": str(tmp_path / "style")}, steps=1)
    assert not mark.exists()


# --------------------------------------------------------------------------------------------------- what is trusted


@pytest.mark.costly
def test_a_trusted_module_runs(trained, call, tmp_path, mark, recipe_with):
    network = hardy.wrap(torch.nn.Conv2d(3, 3, 1), hardy.load(trained).label_space, factory="stranger:make")
    folder = hardy.save(network, tmp_path / "net")
    for trust in ("stranger", ["stranger"], ["other", "stranger:make"]):
        assert isinstance(hardy.load(folder, trust=trust), Wrapped)
    assert mark.exists()
    said = call("bench", folder, "--size", "32x32", "--runs", 1, "--runtime", "eager", "--trust", "stranger")
    assert said.code == 0, said
    assert call("train", recipe_with("algorithm"), "prune=null", "--trust", "stranger").code == 0
    assert "not the name of a module" in call("train", recipe_with("algorithm"), "--trust", "../stranger").err
    with pytest.raises(InputError, match="is named in a file"):
        hardy.load(folder, trust=["strange", "stranger.make", "other"])


def test_a_trusted_package_holds_its_modules(trained, tmp_path, mark):
    folder = described(trained, tmp_path / "net", architecture=ARCHITECTURES["class in a package"])
    with pytest.raises(InputError, match="the weights do not fit"):
        hardy.load(folder, trust=["stranger_package"])
    assert mark.exists()


@pytest.mark.costly
def test_a_name_that_the_user_types_runs(call, recipe, tmp_path, mark):
    said = call("train", recipe(), "algorithm.name=stranger:Learn")
    assert said.code == 0, said
    assert mark.exists()
    # Its recipe is a file now: the same call again has typed the name, another has not.
    assert call("train", recipe(), "algorithm.name=stranger:Learn").code == 0
    assert call("train", tmp_path / "run" / "recipe.yaml").code == 2
    assert call("train", recipe(), "algorithm={name: stranger:Learn}", "run.folder=" + str(tmp_path / "b")).code == 0


def test_trust_ends_with_the_call(call, recipe_with):
    assert call("train", recipe_with("algorithm"), "prune=null", "--trust", "stranger").code == 0
    assert call("train", recipe_with("algorithm"), "prune=null", "run.seed=1").code == 2


@pytest.mark.costly
def test_nothing_is_imported_for_standing_in_the_current_folder(trained, tmp_path, mark):
    described(trained, tmp_path / "here", architecture=ARCHITECTURES["factory"])
    for name in ("yaml", "torch", "numpy", "stranger"):
        text = f"import pathlib, torch\npathlib.Path({str(mark)!r}).touch()\nmake = torch.nn.Identity\n"
        (tmp_path / "here" / f"{name}.py").write_text(text, encoding="utf-8")
    kept = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    words = [sys.executable, "-m", "hardy", "bench", ".", "--size", "32x32"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(kept)}
    done = subprocess.run(words, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "would run code of module 'stranger'" in done.stderr
    assert not mark.exists()


@pytest.mark.costly
def test_code_that_imports_by_name_is_known():
    source = Path(hardy.__file__).parents[1]
    found: dict[str, set[str]] = {}
    for file in sorted(source.rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    name = node.func if isinstance(node, ast.Call) else None
                    text = (
                        name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
                    )
                    if text in ("import_module", "find_spec", "__import__", "exec", "run_path", "run_module"):
                        found.setdefault(str(file.relative_to(source)), set()).add(function.name)
    for file, functions in found.items():
        assert functions <= set(ALLOWED.get(file, "").split(", ")), (
            f"{file}: {functions}: may a file name what it imports?"
        )
