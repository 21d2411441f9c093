"""Records are lines that are whole or absent, with several writers too."""

import errno
import json
import os
from dataclasses import replace
from multiprocessing import get_context

import pytest

from hardy import records
from hardy.errors import InputError
from hardy.records import Record, append, group, read

ONE = Record(
    "0123456789ab",
    "train",
    ("camvid/0006R0", "camvid/0016E5"),
    "camvid/0001TP",
    3,
    "miou",
    0.5,
    {"train_steps": 10},
    {"hardy": "0.1.0"},
    {"criterion": "ior", "size": [192, 256]},
)


def test_what_is_appended_is_read_back_in_order(tmp_path):
    file = tmp_path / "runs" / "records.jsonl"
    append(file, [ONE])
    append(file, [replace(ONE, value=0.25), replace(ONE, metric="iou/sky", value=None)])
    append(file, [])
    assert read(file) == [ONE, replace(ONE, value=0.25), replace(ONE, metric="iou/sky", value=None)]


def test_a_number_that_is_none_is_null_so_that_every_line_is_json(tmp_path):
    file = tmp_path / "records.jsonl"
    append(file, [replace(ONE, value=float("nan")), replace(ONE, value=float("inf"), notes={"x": float("nan")})])
    for line in file.read_text(encoding="utf-8").splitlines():
        assert json.loads(line, parse_constant=pytest.fail)["value"] is None
    assert [record.value for record in read(file)] == [None, None]


def _write(file, writer, barrier):
    barrier.wait()
    for index in range(100):
        append(file, [replace(ONE, seed=writer, value=float(index), notes={"pad": "x" * 3000})] * 2)


@pytest.mark.slow
def test_the_lines_of_two_processes_stay_whole(tmp_path):
    file = tmp_path / "records.jsonl"
    context = get_context("fork")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_write, args=(file, number, barrier)) for number in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found = read(file)
    assert len(found) == 400
    for number in (0, 1):
        assert [r.value for r in found if r.seed == number] == [float(index // 2) for index in range(200)]


@pytest.mark.parametrize(
    "line", ['{"recipe": "0123', "[]", '{"sources": []}', "null", '{"recipe": "x", "sources": null}']
)
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    file = tmp_path / "records.jsonl"
    append(file, [ONE])
    with file.open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")
    with pytest.raises(InputError, match=r"records\.jsonl:2: not a record: .*delete the line to continue"):
        read(file)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_torn_last_line_is_removed_before_the_next_record(tmp_path, kept):
    file = tmp_path / "records.jsonl"
    append(file, [ONE] * kept)
    file.write_bytes((file.read_bytes() if kept else b"") + b'{"recipe": "01')
    append(file, [ONE])
    assert read(file) == [ONE] * (kept + 1)


@pytest.mark.parametrize("once", [False, True])
def test_a_whole_last_line_without_its_end_stays(tmp_path, once):
    file = tmp_path / "records.jsonl"
    append(file, [ONE])
    file.write_bytes(file.read_bytes().rstrip())
    append(file, [ONE, replace(ONE, seed=7)], once=once)
    assert [each.seed for each in read(file)] == [ONE.seed] * (2 - once) + [7]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "records.jsonl"
    append(file, [ONE])
    before = file.read_bytes()
    write = os.write
    monkeypatch.setattr(records.os, "write", lambda handle, data: write(handle, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left") as caught:
        append(file, [ONE])
    assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == before


def test_groups_keep_the_order_of_first_appearance():
    made = [
        replace(ONE, seed=2, notes={"criterion": "ior"}),
        replace(ONE, seed=1, notes={"criterion": "random"}),
        replace(ONE, seed=1, notes={"criterion": "ior"}),
        replace(ONE, seed=2, notes={}),
    ]
    assert [(key, [made.index(r) for r in found]) for key, found in group(made, "notes.criterion")] == [
        (("ior",), [0, 2]),
        (("random",), [1]),
        ((None,), [3]),
    ]
    assert [key for key, _ in group(made, "metric", "seed")] == [("miou", 2), ("miou", 1)]
