"""The command line as a user has it: called with words, judged by its exit code and by what it prints."""

import io
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import hardy
from hardy.cli import main


class Said(NamedTuple):
    """What a call left behind: its exit code, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def call() -> Callable[..., Said]:
    """``call("train", file, "optim.steps=2")``: the command line, in this process."""

    def run(*words: object) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["hardy", *map(str, words)])
            with pytest.raises(SystemExit) as left:
                main()
        return Said(int(left.value.code or 0), out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def refused(call: Callable[..., Said], tmp_path: Path) -> Callable[..., str]:
    """``refused("train", file)``: the one line that a call which exits with 2 says, without its ``hardy: ``.

    Of new files it may leave those named by ``leaving``: nothing half-written.
    """

    def run(*words: object, leaving: Iterable[str] = ()) -> str:
        before = files(tmp_path)
        said = call(*words)
        assert said.code == 2, said
        assert said.err.startswith("hardy: "), said.err
        assert said.err.endswith("\n")
        assert said.err.count("\n") == 1, said.err
        assert "Traceback" not in said.err + said.out
        new = {path.name for path in files(tmp_path) - before}
        assert new <= {*leaving}, new
        return said.err.removeprefix("hardy: ").rstrip("\n")

    return run


def files(folder: Path) -> set[Path]:
    """Every file below ``folder``."""
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def recipe_in(town: Path) -> Callable[..., Path]:
    """``recipe_in(folder, optim={"steps": 3})``: a recipe file that trains `tiny` on the town's day for two steps.

    A section's settings are added to these; a network is put in place of the whole section.
    """

    def write(folder: Path, **sections: dict[str, object]) -> Path:
        values: dict[str, dict[str, object]] = {
            "network": {"name": "tiny", "width": 16, "classes": str(town)},
            "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 32]},
            "optim": {"steps": 2, "batch": 4},
            "evaluate": {"select": "last"},
            "run": {"folder": str(folder / "run"), "workers": 0, "device": "cpu"},
        }
        for section, settings in sections.items():
            values[section] = settings if section == "network" else {**values.get(section, {}), **settings}
        file = folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return file

    return write


@pytest.fixture
def recipe(recipe_in: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """That in the folder of the test."""
    return partial(recipe_in, tmp_path)


@pytest.fixture(scope="session")
def trained(town: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of the town's three classes; not to be written to."""
    return hardy.save(hardy.create("tiny", town, width=16), tmp_path_factory.mktemp("trained"))
