"""The folder of a study: which cells are done, one store of records, failures, weights that may go."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hardy import records
from hardy.errors import InputError
from hardy.recipe import from_values
from hardy.records import Record
from hardy.studies.cells import Cell
from hardy.studies.ledger import Failure, Ledger


def cell(name: str, after: str | None = None, seed: int = 0, home: str = "somewhere") -> Cell:
    network = {"run": f"{home}/cells/{after}"} if after else {"name": "tiny"}
    recipe = from_values({"network": network, "data": {"sources": ["streets/sim"]}, "run": {"seed": seed}})
    return Cell(name, name, "train", {"seed": str(seed)}, recipe, after)


def record(value: float, stage: str = "train", target: str = "unseen") -> Record:
    return Record("0", stage, ("streets/sim",), target, 0, "miou", value)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Of the cells ``b`` after ``a``, ``c`` after ``b``, and ``d``."""
    return Ledger(tmp_path, "s", [cell("a"), cell("b", "a"), cell("c", "b"), cell("d", seed=1)])


@pytest.fixture
def finish(ledger: Ledger) -> Callable[[str, float], None]:
    """``finish("a", 0.5)``: what a finished run leaves."""

    def write(name: str, value: float) -> None:
        folder = ledger.run_folder(name)
        ledger.cells[name].recipe.write(folder / "recipe.yaml", {})
        (folder / "network.json").write_text(json.dumps({"sha256": hashlib.sha256(b"weights").hexdigest()}))
        (folder / "network.safetensors").write_bytes(b"weights")
        records.append(folder / "records.jsonl", [record(value), record(0.1, stage="evaluate")])

    return write


def test_a_cell_is_done_when_its_run_is_finished(ledger, finish):
    finish("a", 0.5)
    finish("d", 0.6)
    assert ledger.done("abcd") == ["a", "d"]
    assert ledger.done("ab") == ["a"]
    (ledger.run_folder("a") / "network.safetensors").write_bytes(b"weigh")
    assert ledger.done("a") == [], "its weights are torn"


def test_a_folder_with_the_run_of_another_recipe_is_refused_but_a_moved_study_is_not(ledger, finish):
    finish("b", 0.5)
    cell("b", "a", home="elsewhere").recipe.write(ledger.run_folder("b") / "recipe.yaml", {})
    assert ledger.done("b") == ["b"]
    for other in (cell("b", "a", seed=1), cell("b", "d"), cell("b")):
        other.recipe.write(ledger.run_folder("b") / "recipe.yaml", {})
        with pytest.raises(InputError, match="holds the run of another recipe or seed"):
            ledger.done("b")


def test_the_store_holds_each_number_once_and_the_latest_counts(ledger, finish):
    finish("a", 0.5)
    ledger.gather("a")
    ledger.gather("a")
    assert len(records.read(ledger.store)) == 1
    (found,) = ledger.read()
    assert (found.value, found.stage) == (0.5, "train")
    assert found.notes == {"study": "s", "cell": "a", "of": "a", "axes": {"seed": "0"}}
    finish("a", 0.7)
    ledger.gather("a")
    assert [one.value for one in records.read(ledger.store)] == [0.5, 0.7]
    again = Ledger(ledger.folder, "s", list(ledger.cells.values()))
    assert [one.value for one in again.read()] == [one.value for one in ledger.read()] == [0.7]
    again.gather("a")
    assert len(records.read(ledger.store)) == 2


def test_weights_go_when_no_unfinished_cell_needs_them(ledger, finish):
    for name in "ab":
        finish(name, 0.5)
    ledger.drop()
    assert [(ledger.run_folder(name) / "network.safetensors").exists() for name in "ab"] == [False, True]
    assert ledger.done("abcd") == ["a", "b"]
    (ledger.run_folder("b") / "network.safetensors").unlink()
    assert ledger.done("abcd") == [], "c needs the weights of b, and those of a to make them"
    assert ledger.done("abd") == ["a", "b"]
    ledger.prepare("b")
    assert not (ledger.run_folder("b") / "network.json").exists()


def test_what_holds_the_rest_of_a_tuned_cell_stays_as_long_as_that_is_needed(ledger, finish):
    """``b`` was tuned from ``a`` and holds only what was trained; ``c`` continues from it."""
    finish("a", 0.5)
    finish("b", 0.5)
    file = ledger.run_folder("b") / "network.json"
    tuned = {**json.loads(file.read_text()), "rest": {"sha256": "", "from": {"run": "../a", "sha256": ""}}}
    file.write_text(json.dumps(tuned))
    ledger.drop()
    assert [(ledger.run_folder(name) / "network.safetensors").exists() for name in "ab"] == [True, True]
    assert ledger.done("abcd") == ["a", "b"]
    (ledger.run_folder("a") / "network.safetensors").unlink()
    assert ledger.done("abcd") == [], "without a, b cannot be loaded"
    assert ledger.done("abd") == ["a", "b"], "nothing continues from b"
    finish("c", 0.5)
    assert ledger.done("abc") == ["a", "b", "c"]
    finish("a", 0.5)
    ledger.drop()
    assert [(ledger.run_folder(name) / "network.safetensors").exists() for name in "abc"] == [False] * 3


def test_the_weights_of_a_cell_that_is_not_measured_yet_stay(ledger, finish):
    finish("d", 0.5)
    (ledger.run_folder("d") / "checkpoint.safetensors").touch()
    ledger.drop()
    assert (ledger.run_folder("d") / "network.safetensors").exists()
    (ledger.run_folder("d") / "checkpoint.safetensors").unlink()
    ledger.drop()
    assert not (ledger.run_folder("d") / "network.safetensors").exists()


def test_a_failure_is_kept_until_its_cell_runs_again(ledger):
    kept = [Failure(name, "why", 2, "log") for name in "ad"]
    for failure in kept:
        ledger.failed(failure)
    assert ledger.failures() == kept
    ledger.prepare("a")
    assert ledger.failures() == kept[1:]
    assert "cell: a" in ledger.recipe_file("a").read_text()
    ledger.prepare("d")
    assert not (ledger.folder / "failures.jsonl").exists()


def test_a_cell_that_another_process_finished_is_not_run_again(ledger, finish):
    assert ledger.done("ab") == []
    assert ledger.prepare("a")
    finish("a", 0.5)
    assert not ledger.prepare("a")
    assert ledger.done("a") == ["a"], "its network stays"
    (ledger.run_folder("a") / "checkpoint.safetensors").write_bytes(b"")
    assert ledger.prepare("a"), "it is not measured yet"


def test_one_study_at_a_time_works_in_a_folder(ledger):
    with ledger.alone() as going:
        assert going.exists()
        with pytest.raises(InputError, match="another hardy study works in this folder"), ledger.alone():
            pass
        assert going.exists()
    assert not going.exists()
    with ledger.alone():
        pass


def test_what_a_killed_process_left_in_a_finished_cell_goes_and_its_results_stay(ledger, finish):
    finish("a", 0.5)
    kept = {path.name for path in ledger.run_folder("a").iterdir()}
    for name in (".lock", "best.safetensors"):
        (ledger.run_folder("a") / name).touch()
    ledger.tidy("a")
    assert {path.name for path in ledger.run_folder("a").iterdir()} == kept
