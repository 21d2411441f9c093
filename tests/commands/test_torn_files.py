"""What runs leave for later calls, torn or binary: one line that names the file."""

import dataclasses
import json
import os

import pytest

from hardy import records
from hardy.commands._costs import PruningReport
from hardy.engine.run_files import WEIGHTS, holds_network
from hardy.errors import InputError
from hardy.networks.building.classes import names_beside
from hardy.records import Record
from hardy.studies.ledger import Ledger
from hardy.timing.targets import Outcome

OUTCOME = Outcome("target_ms", 3.0, 9.0, 1.0, 2.5, 2.9, 4, "eager, cpu, 1 thread")


def refusal(read, *given):
    with pytest.raises(InputError) as caught:
        read(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_pruning_found_comes_back(tmp_path):
    found = PruningReport(OUTCOME, {"head": "reaches the output"}, {"score_seconds": 1.5})
    found.write(tmp_path)
    assert PruningReport.read(tmp_path) == found
    assert PruningReport.read(tmp_path / "nothing") == PruningReport()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"3",
        b"{}",
        b"[" * 5000,
        b'{"outcome": null}',
        b'{"outcome": 3, "blocked": {}}',
        b'{"outcome": null, "blocked": 3}',
        b'{"outcome": null, "blocked": {"a": 3}}',
        b'{"outcome": {"key": 1}, "blocked": {}}',
        b'{"outcome": null, "blocked": {}, "took": {"score_seconds": "long"}}',
        json.dumps({"outcome": {**dataclasses.asdict(OUTCOME), "reached": "fast"}, "blocked": {}}).encode(),
        json.dumps({"outcome": {**dataclasses.asdict(OUTCOME), "code": "x"}, "blocked": {}}).encode(),
    ],
)
def test_a_damaged_pruning_json_is_named(tmp_path, data):
    (tmp_path / "pruning.json").write_bytes(data)
    assert refusal(PruningReport.read, tmp_path).startswith(f"{tmp_path / 'pruning.json'}: not ")


LINE = dataclasses.asdict(Record("r", "train", ("a",), "unseen", 0, "miou", 0.5))


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"[",
        b"[" * 5000,
        b"3",
        b"null",
        b"{}",
        b'"text"',
        b"\x00" * 50,
        *(
            json.dumps(LINE | {key: value}).encode()
            for key, value in (
                ("recipe", 3),
                ("stage", None),
                ("sources", 3),
                ("sources", [3]),
                ("target", []),
                ("seed", "x"),
                ("metric", {}),
                ("value", "x"),
                ("value", True),
                ("cost", 3),
                ("versions", []),
                ("notes", "x"),
                ("more", 1),
            )
        ),
    ],
    ids=lambda text: text[:60].decode("latin-1"),
)
def test_a_line_that_is_no_record_is_named(tmp_path, text):
    file = tmp_path / "records.jsonl"
    records.append(file, [Record("r", "train", ("a",), "unseen", 0, "miou", 0.5)])
    file.write_bytes(file.read_bytes() + text + b"\n")
    line = refusal(records.read, file)
    assert line.startswith(f"{file}:2: not ")
    assert line.endswith("; delete the line to continue")


@pytest.mark.parametrize("text", [b"\xff", b"{", b"3", b"{}", b'{"cell": 1, "reason": "", "code": 1, "log": ""}'])
def test_a_line_that_is_no_failure_is_named(tmp_path, text):
    (tmp_path / "failures.jsonl").write_bytes(text + b"\n")
    line = refusal(Ledger(tmp_path, "s", ()).failures)
    assert line.startswith(f"{tmp_path / 'failures.jsonl'}:1: not ")


def test_a_pipe_in_place_of_weights_is_no_network_and_is_not_waited_for(tmp_path):
    (tmp_path / "network.json").write_text('{"sha256": ""}')
    os.mkfifo(tmp_path / WEIGHTS)
    assert not holds_network(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"labels": 3}', "\ufffd"])
def test_a_description_that_is_none_gives_no_classes(tmp_path, text):
    (tmp_path / "network.json").write_text(text, encoding="utf-8")
    assert names_beside(tmp_path / WEIGHTS) is None
