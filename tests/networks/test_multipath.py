"""The file format of multi-path architectures: what it says, what may be shared, what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hardy.errors import InputError
from hardy.networks.architectures.multipath import PUBLISHED, Layer, parse, read

SMALL: dict[str, Any] = {
    "format": "multipath/1",
    "Fch": 12,
    "stem": {"width": 4},
    "head_width": 6,
    "num_classes": 19,
    "branches": [
        {"last": 1, "ops": ["conv", "conv_2x", "conv_downup"], "path": [0, 0, 1], "widths": [8, 12]},
        {"last": 0, "ops": ["conv", "conv"], "path": [0, 0], "widths": [8]},
    ],
    "meta": {"latency_ms": 1.0},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """`SMALL` with ``value`` at ``key``, such as ``branches.0.path``."""
    found = copy.deepcopy(SMALL)
    *way, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    inner: Any = found
    for part in way:
        inner = inner[part]
    inner[last] = value
    return found


def test_layers_by_hand() -> None:
    plan = parse(SMALL, "small")
    deep, fine = (plan.layers(branch) for branch in plan.branches)
    assert deep == [
        Layer("conv", scale=0, stride=1, channels=64),  # 8 * 12 * 8 / 12
        Layer("conv_2x", scale=1, stride=2, channels=192),  # 16 * 12
        Layer("conv_downup", scale=1, stride=1, channels=96),  # 16 * 12 * 6 / 12
    ]
    assert fine[-1] == Layer("conv", scale=0, stride=1, channels=48)


def test_equal_prefixes_are_shared_but_for_last_layers() -> None:
    cells, routes = parse(SMALL, "small").shared()
    assert routes == [[0, 1, 2], [0, 3]]
    assert [before for before, _ in cells] == [-1, 0, 1, 0]
    twice = changed("branches.1", SMALL["branches"][0])
    assert parse(twice, "twice").shared()[1] == [[0, 1, 2], [0, 1, 3]]
    split = changed("branches.1.widths", [4])  # another width from the first layer on
    assert parse(split, "split").shared()[1] == [[0, 1, 2], [3, 4]]
    longer = {"last": 0, "ops": ["conv_2x", "conv", "conv"], "path": [0, 0, 0], "widths": [8, 8]}
    other = {"last": 0, "ops": ["conv", "conv", "conv"], "path": [0, 0, 0], "widths": [8, 8]}
    again = changed("branches", [longer, other])  # the second layers are equal, the first are not
    assert parse(again, "again").shared()[1] == [[0, 1, 2], [3, 4, 5]]


def test_the_published_student_shares_its_first_three_layers() -> None:
    plan = parse(read(PUBLISHED["student"]), "student")
    routes = plan.shared()[1]
    assert [a == b for a, b in zip(*routes, strict=False)] == [True] * 3 + [False] * 6
    deep, middle = ([layer.channels for layer in plan.layers(branch)] for branch in plan.branches)
    assert deep == [32, 32, 32, 128, 64, 64, 64, 128, 128, 256]
    assert middle == [32, 32, 32, 32, 32, 64, 64, 192, 128]
    assert [layer.stride for layer in plan.layers(plan.branches[0])] == [1, 1, 1, 2, 1, 1, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (changed("format", "multipath/2"), "small: format is 'multipath/2'; it must be 'multipath/1'"),
        (changed("formt", 1), "unknown key 'formt'; did you mean 'format'"),
        ({key: value for key, value in SMALL.items() if key != "stem"}, "small: stem is missing"),
        (changed("stem", 8), 'small: stem is 8; it must be {"width": ...}'),
        (changed("stem.width", 5), "small: stem.width is 5; it must be one of: 4, 6, 8, 10, 12"),
        (changed("head_width", True), "head_width is True"),
        (changed("Fch", 0), "Fch is 0; it must be a whole number of 1 or more"),
        (changed("Fch", 1.5), "Fch is 1.5"),
        (changed("branches", []), "branches is empty"),
        (changed("branches", 3), "branches is 3; it must be a list"),
        (changed("branches.0", "conv"), "branches[0] is 'conv'; it must be an object"),
        (changed("branches.0.last", 3), "branches[0].last is 3; it must be one of: 0, 1, 2"),
        (changed("branches.0.last", 2), "branches[0].path ends at 1 and last is 2"),
        (changed("branches.1.ops.0", "conv2x"), "branches[1].ops[0] is 'conv2x'; did you mean 'conv_2x'"),
        (changed("branches.1.ops.0", "skip"), "branches[1].ops[0] is 'skip'; it must be one of: conv,"),
        (changed("branches.0.path", [0, 0]), "3 ops, 2 scales in path and 2 widths; it must have n >= 1, n and n - 1"),
        (changed("branches.0.widths", [8, 8, 8]), "3 ops, 3 scales in path and 3 widths"),
        (changed("branches.0.widths", [8, [8]]), "widths[1] is [8]"),
        (changed("branches.0.path", [1, 1, 1]), "branches[0].path starts at 1"),
        (changed("branches.0.path", [0, 2, 1]), "path goes from 0 to 2 after layer 0; it may stay or go up by 1"),
        (changed("branches.0.path", [0, 1, 0]), "path goes from 1 to 0 after layer 1"),
    ],
)
def test_refuses_what_breaks_a_rule(found: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(found, "small")
    assert words in str(caught.value)
    assert str(caught.value).startswith("small")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no such file; give student, teacher, or a JSON file"), ("{", "cannot be read as JSON"), ("[]", "a list")],
)
def test_refuses_what_is_no_file_of_json(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "found.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read(file)
    assert "found.json" in str(caught.value)
    file.write_text(json.dumps(SMALL))
    assert read(file) == SMALL
