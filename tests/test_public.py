"""The public names, and what it costs to ask for help."""

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hardy

NAMES = [
    "adapt",
    "bench",
    "create",
    "evaluate",
    "export",
    "import_weights",
    "load",
    "merge",
    "predict",
    "prune",
    "quantize",
    "save",
    "stream",
    "train",
    "wrap",
]
COMMANDS = {"adapt", "bench", "evaluate", "export", "predict", "prune", "quantize", "stream", "train"}
HEAVY = ("torch", "numpy", "timm", "torchvision", "torch_pruning", "segmentation_models_pytorch", "accelerate", "onnx")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python ``code`` in a process of its own; what it imported of `HEAVY` is on the last line of stdout."""
    prelude = (
        f"import atexit, sys; atexit.register(lambda: print('HEAVY', [n for n in {HEAVY!r} if n in sys.modules]))\n"
    )
    settings = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, check=False, env=settings, timeout=60
    )


def test_the_public_names_are_these_and_sorted() -> None:
    assert hardy.__all__ == sorted(hardy.__all__) == NAMES
    assert set(NAMES) <= set(dir(hardy))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_a_function_that_says_what_it_does(name: str) -> None:
    found = getattr(hardy, name)
    assert inspect.isfunction(found)
    assert found.__name__ == name
    assert inspect.getdoc(found)
    for parameter in inspect.signature(found).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}({parameter.name}) has no type"


def test_a_wrong_name_is_refused_and_a_package_never_shadows_a_function() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pruned'"):
        hardy.pruned  # noqa: B018 - the access is what is tested
    for name in NAMES:
        importlib.import_module(f"hardy.commands.{name}" if name in COMMANDS else "hardy.pruning.criteria")
        assert inspect.isfunction(getattr(hardy, name))


@pytest.mark.slow
def test_counts_of_a_run_are_read_without_an_import_of_their_own() -> None:
    done = run("import hardy; print('counts' in dir(hardy), hardy.counts.read)")
    assert done.stdout.startswith("True <function read"), done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY ['numpy']"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["train", "--help"], ["list"], ["list", "criterion"], ["list", "nothing"]],
    ids=" ".join,
)
def test_help_and_list_import_nothing_heavy(arguments: list[str]) -> None:
    done = run(f"import sys; sys.argv = ['hardy', *{arguments!r}]; from hardy.cli import main; main()")
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stderr
    assert done.returncode == (2 if "nothing" in arguments else 0)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_completion_imports_nothing_heavy_and_completes() -> None:
    asked = {"_HARDY_COMPLETE": "complete_bash", "COMP_WORDS": "hardy tr", "COMP_CWORD": "1"}
    done = run("import sys; sys.argv = ['hardy']; from hardy.cli import app; app(prog_name='hardy')", **asked)
    assert "train" in done.stdout.splitlines(), done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(("given", "kept"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")], ids=str)
def test_waiting_threads_sleep_unless_set_otherwise(given: dict[str, str], kept: str) -> None:
    code = "import hardy, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**rest, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [kept, "False"]


@pytest.mark.slow
def test_the_installed_command_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("hardy")
    by_module = subprocess.run([sys.executable, "-m", "hardy", "--version"], capture_output=True, text=True, check=True)
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert by_module.stdout == by_script.stdout == f"hardy {hardy.__version__}\n"
