"""JSON from a file is bounded in depth and size, and its numbers are numbers."""

import os

import pytest

from hardy.errors import InputError
from hardy.stored import contents, finite, is_integer, json_lines, json_value, read_json


def test_what_hardy_writes_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null, true, "ü"], "b": {"c": []}}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None, True, "ü"], "b": {"c": []}}
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 2}\n', encoding="utf-8")
    assert json_lines(tmp_path / "a.jsonl") == ['{"a": 1}', '{"b": 2}']
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b"', encoding="utf-8")
    assert json_lines(tmp_path / "a.jsonl") == ['{"a": 1}', '{"b"']
    (tmp_path / "a.jsonl").write_text("", encoding="utf-8")
    assert json_lines(tmp_path / "a.jsonl") == []


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "[" * 100_000,
        '{"a":' * 5000,
        "[" * 60 + "]" * 60,
        "NaN",
        "[Infinity]",
        "1e999",
        "9" * 5000,
        '"\\ud800"',
        '{"\\udc00": 1}',
        "{",
        b"\xff\xfe",
        "",
    ],
    ids=str,
)
def test_what_nobody_could_use_is_refused_in_one_line(text, tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_json(file)
    assert str(caught.value).startswith(f"{file}: not JSON that Hardy wrote (")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"\S"):
        json_value(file.read_bytes())


def test_a_line_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n{}\n\xff\xfe\n")
    with pytest.raises(InputError, match=r"a\.jsonl:3: not text"):
        json_lines(tmp_path / "a.jsonl")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    for read in (contents, read_json, json_lines):
        with pytest.raises(InputError, match="is a pipe or a device"):
            read(tmp_path / "a.json")


def test_numbers():
    assert [value for value in (0, 1, -1, True, 2**63, 1.0, "1", None) if is_integer(value)] == [0, 1]
    assert [value for value in (0, -1.5, True, float("nan"), float("inf"), 10**400, "1") if finite(value)] == [0, -1.5]
