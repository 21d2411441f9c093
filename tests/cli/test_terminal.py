"""What every verb shares on the terminal: JSON, colours, width, tracebacks; and runs compared and removed."""

import io
import json
import re
import sys
from typing import get_args

import pytest
from rich.console import Console

import hardy
from hardy import cli, records
from hardy.commands import doctor
from hardy.commands.input.completion import CHOICES, among
from hardy.commands.output import printing
from hardy.deployment.epilogue import Upsample
from hardy.deployment.forms import Precision
from hardy.deployment.statistics import Statistics
from hardy.device import pick
from hardy.lock import Lock
from hardy.recipe import from_values
from hardy.records import Record
from hardy.timing.clock import Runtime


@pytest.fixture
def runs(tmp_path):
    """A function that makes a run: its learning rate and its scores by domain."""

    def make(name, rate, **scores):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        data = {"sources": ["streets/day"]}
        made = from_values({"network": {"name": "tiny"}, "data": data, "optim": {"lr": rate}})
        made.write(folder / "recipe.yaml", {})
        rows = [Record("r", "train", ("streets/day",), target, 0, "miou", value) for target, value in scores.items()]
        rows.append(Record("r", "train", (), "cost", 0, "parameters", 3475.0))
        records.append(folder / "records.jsonl", rows)
        return folder

    return make


def test_a_torn_last_line_is_left_out_and_named(call, runs):
    folder = runs("dense", 0.1, **{"intra": 0.5, "unseen": 0.4, "streets/fog": 0.4})
    file = folder / "records.jsonl"
    file.write_text(file.read_text() + '{"recipe": "r", "sta')
    said = call("runs", folder.parent)
    assert (said.code, said.err) == (0, f"hardy: {file}:5: the last line is incomplete and was left out\n")
    assert "50.0" in said.out


def test_json_holds_what_a_verb_shows(call, runs, tmp_path):
    one = runs("one", 0.1, unseen=0.25, worst=0.125)
    plain = call("runs", tmp_path / "runs")
    assert "25.0" in plain.out
    for words in (("runs", tmp_path / "runs", "--json"), ("--json", "runs", tmp_path / "runs")):
        said = call(*words)
        assert (said.code, said.err) == (0, "")
        (table,) = json.loads(said.out)["tables"]
        assert table["columns"] == ["folder", "stage", "seed", "intra %", "unseen %", "worst %"]
        assert table["rows"] == [[str(one), "train", 0, None, 25.0, 12.5]]


@pytest.mark.costly
def test_json_holds_the_records_that_a_verb_makes(call, tmp_path):
    run = hardy.save(hardy.create("tiny", classes="camvid11", width=8), tmp_path / "run")
    said = call("bench", run, "--size", "32x32", "--runs", "1", "--runtime", "eager", "--json")
    assert (said.code, said.err) == (0, "")
    report = json.loads(said.out)
    kept = records.read(run / "records.jsonl")
    assert [each["value"] for each in report["records"]] == [record.value for record in kept]
    assert {each["metric"] for each in report["records"]} >= {"milliseconds_p50", "milliseconds_p95"}


def test_an_error_with_json_is_one_line_and_no_json(call, tmp_path):
    said = call("runs", tmp_path, "--json")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"hardy: {tmp_path}: there is no run")


def test_debug_shows_the_traceback_before_the_line(call, tmp_path):
    said = call("runs", tmp_path, "--debug")
    assert said.code == 2
    *trace, line = said.err.splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert line.startswith("hardy: ")
    assert call("runs", tmp_path).err == f"{line}\n"


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=str)
def test_no_color_is_obeyed(monkeypatch, environment, coloured):
    for name, value in {"TERM": "xterm-256color", "FORCE_COLOR": "1", **environment}.items():
        monkeypatch.setenv(name, value)
    if coloured:
        monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Console(file=io.StringIO(), width=80)
    printing.show_rows("title", ["a"], [["1"]], console=screen)
    screen.print("red", style="red")
    assert bool(re.search(r"\x1b\[3[0-9]m", screen.file.getvalue())) == coloured


def test_the_list_of_runs_is_plain_when_piped_and_fits_a_terminal_of_80_columns(call, runs, tmp_path, monkeypatch):
    runs("one", 0.1, unseen=0.25)
    assert "\x1b" not in call("runs", tmp_path / "runs").out
    screen = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(printing, "Console", lambda **options: screen)
    call("runs", tmp_path / "runs")
    lines = screen.file.getvalue().splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80


def test_a_narrow_terminal_wraps_long_words_and_cuts_off_nothing():
    screen = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    name, path = "streets-of-a-very-long-name", "discrete/images/{train,val}/front/{img,semseg}"
    printing.show_rows("title", ["data set", "state", "n"], [[name, path, "1"], ["b", "found", "2"]], console=screen)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    cells = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    for column, whole in enumerate((name + "b", path + "found", "12")):
        assert "".join(cell[column].strip() for cell in cells) == whole


def test_the_doctor_does_not_repeat_the_folder_in_every_row(tmp_path):
    texts = {f"{tmp_path}: no GTA5 here": "no GTA5 here", f"{tmp_path}/classes.yaml: gone": "classes.yaml: gone"}
    assert [doctor._below(tmp_path, text) for text in texts] == list(texts.values())


def test_the_choices_that_the_shell_completes_are_those_that_exist():
    kinds = {"runtime": Runtime, "dtype": Precision, "upsample": Upsample, "statistics": Statistics}
    assert {name: CHOICES[name] for name in kinds} == {name: get_args(kind) for name, kind in kinds.items()}
    assert all(pick(name) for name in CHOICES["device"] if name != "cuda")
    assert among("runtime")("o") == ["onnxruntime", "openvino"]


@pytest.mark.parametrize("verb", ["train", "export", "quantize", "runs", "push"])
def test_the_help_fits_80_columns(call, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = call(verb, "--help").out
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()) <= 80


def test_runs_are_compared_by_settings_scores_and_costs(call, runs):
    one, two = runs("one", 0.1, unseen=0.25, worst=0.125), runs("two", 0.2, unseen=0.5)
    said = call("runs", "compare", one, two, "--json")
    assert (said.code, said.err) == (0, "")
    (table,) = json.loads(said.out)["tables"]
    assert table["columns"] == ["", str(one), str(two), "difference"]
    assert table["rows"] == [
        ["optim.lr", 0.1, 0.2, None],
        ["unseen %", 25.0, 50.0, "+25.0"],
        ["worst %", 12.5, None, None],
        ["parameters", 3475, 3475, None],
    ]
    said = call("runs", "compare", one, one)
    assert (said.code, said.out) == (2, "")
    assert "give two runs or more, each once" in said.err


def test_costs_of_a_trained_and_a_pruned_run_are_in_one_row(call, runs):
    one, two = runs("one", 0.1, unseen=0.25), runs("two", 0.1, unseen=0.25)
    for folder, end, values in ((one, "", (3475, 1.5)), (two, "_after", (875, 0.5))):
        pairs = zip((f"parameters{end}", f"gmacs{end}"), values, strict=True)
        records.append(
            folder / "records.jsonl", [Record("r", "prune", (), "cost", 0, name, value) for name, value in pairs]
        )
    (table,) = json.loads(call("runs", "compare", one, two, "--json").out)["tables"]
    assert table["rows"][-2:] == [["parameters", 3475, 875, None], ["GMACs", 1.5, 0.5, None]]


class Answering(io.StringIO):
    """Standard input of somebody who answers."""

    def isatty(self):
        return True


def test_removal_asks_first(call, runs, monkeypatch):
    one, two = runs("one", 0.1), runs("two", 0.2)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert call("runs", "rm", one).err == (
        "hardy: runs rm: nobody can answer here; give --yes to remove them without asking\n"
    )
    monkeypatch.setattr(sys, "stdin", Answering("n\n"))
    said = call("runs", "rm", one)
    assert (said.code, said.out.strip()[-19:]) == (1, "nothing was removed")
    assert "Remove them permanently?" in said.err
    monkeypatch.setattr(sys, "stdin", Answering(""))
    assert call("runs", "rm", one).code == 130
    assert one.is_dir()
    monkeypatch.setattr(sys, "stdin", Answering("y\n"))
    assert call("runs", "rm", one).code == 0
    assert not one.exists()
    assert call("runs", "rm", two, "--yes").code == 0
    assert not two.exists()


def test_only_runs_that_nobody_uses_are_removed(call, runs, tmp_path):
    one = runs("one", 0.1)
    (tmp_path / "photos").mkdir()
    said = call("runs", "rm", one, tmp_path / "photos", "--yes")
    assert (said.code, one.is_dir(), (tmp_path / "photos").is_dir()) == (2, True, True)
    assert "so it is not a run; nothing is removed" in said.err
    with Lock(one):
        assert "works in this folder" in call("runs", "rm", one, "--yes").err
    assert (one / "records.jsonl").is_file()


def test_json_of_a_verb_of_its_own_is_left_to_it():
    assert cli.own_json(cli.app, ["quantize", "run", "net.onnx"])
    assert cli.own_json(cli.app, ["data", "check", "show"])
    assert not cli.own_json(cli.app, ["runs", "."])
    assert not cli.own_json(cli.app, ["data", "show", "check"])
    assert not cli.own_json(cli.app, ["data", "camvid", "check"])


def test_json_stands_before_or_after_any_verb(call, town):
    shown = [call(*words) for words in (("--json", "data", "check", town), ("data", "check", town, "--json"))]
    assert shown[0].code == shown[1].code
    assert {*json.loads(shown[0].out)} == {*json.loads(shown[1].out)}
    for words in (("--json", "data", "folder", "--root", town), ("data", "folder", "--root", town, "--json")):
        assert {*json.loads(call(*words).out)} == {"records", "tables", "lines"}


def test_json_of_the_list_has_a_row_for_each_method(call):
    (table,) = json.loads(call("list", "criterion", "--json").out)["tables"]
    assert table["title"] == "criterion"
    assert table["columns"] == ["name", "purpose", "source", "options"]
    assert {"ior", "l2", "taylor"} <= {row[0] for row in table["rows"]}


@pytest.mark.parametrize(
    "words", [["--json"], ["--json", "--help"], ["train", "--json", "--help"], ["--json", "--version"]]
)
def test_help_is_no_json(call, words):
    assert call(*words).out == call(*(word for word in words if word != "--json")).out
