"""Text from anybody becomes plain values within bounds, or one line."""

from pathlib import Path

import pytest

from hardy import recipe, safe_yaml
from hardy.commands.input.words import nested, size_of
from hardy.data.label_spaces import read_classes
from hardy.errors import InputError
from hardy.studies import study

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD = {
    "bomb": (BOMB, "expands to 490,329,064 values or more; at most 50,000 are read"),
    "circle": ("a: &a [*a]", "line 1, column 4: the anchored value contains itself"),
    "deep flow": ("[" * 1000 + "]" * 1000, "are nested more than 24 deep"),
    "deep unended": ("{a: " * 5000, "are nested more than 24 deep"),
    "deep block": ("- " * 1000 + "a", "are nested more than 24 deep"),
    "bytes key": ("? !!binary aGk=\n: 1", "the tag 'tag:yaml.org,2002:binary' is not used here"),
    "wrong tag": ("a: !!int abc", "the tag 'tag:yaml.org,2002:int' is not used here"),
    "python tag": ("a: !!python/object/apply:os.abort []", "is not used here; leave it out"),
    "digits": ("a: " + "9" * 5000, "line 1, column 4: '9999"),
    "sixty digits": ("a: " + "9" * 60, "is out of range; numbers end at 9223372036854775807"),
    "base 60": ("a: " + ":".join(["59"] * 20), "is out of range"),
    "time": ("a: 1:30", "line 1, column 4: '1:30' is 90 in YAML; write that, or quote a text"),
    "time with a point": ("a: 1:30.5", "line 1, column 4: '1:30.5' is 90.5 in YAML"),
    "base 8": ("a: 010", "line 1, column 4: '010' is 8 in YAML; write that, or quote a text"),
    "nothing but a mark": ('a: "b\\0c"', "line 1, column 4: 'b\\x00c' holds a NUL character; leave it out"),
    "nothing in a key": ('"b\\0c": 1', "line 1, column 1: 'b\\x00c' holds a NUL character"),
    "twice": ("a: 1\nb: 2\na: 3", "line 3, column 1: 'a' was already given on line 1; keep one of them"),
    "twice within": ("s:\n  a: 1\n  a: 1", "line 3, column 3: 'a' was already given on line 2"),
    "twice as text": ("1: a\n'1': b", "'1' was already given"),
    "list as key": ("? [a]\n: 1", "a key is a list or a mapping"),
    "long": ("a" * 2_000_000, "more than 1,048,576 characters"),
    "two documents": ("a: 1\n---\nb: 2", "not YAML: expected a single document"),
    "no text": ("a: \x00", "not YAML: unacceptable character"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_what_goes_beyond_a_bound_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    readers = (safe_yaml.read, recipe.read, read_classes, lambda path: study.read(path)[0])
    for reader in readers:
        with pytest.raises(InputError) as caught:
            reader(file)
        line = str(caught.value)
        assert line.startswith(f"{file}: ")
        assert said in line
        assert "\n" not in line
        assert len(line) < len(str(file)) + 420


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for text, _ in BAD.values()], ids=BAD)
def test_overrides_and_options_have_the_same_bounds(text: str) -> None:
    values = {"network": {"name": "tiny"}, "data": {"sources": ["folder/day"]}}
    for call in (lambda: recipe.from_values(values, [f"optim.lr={text}"]), lambda: nested([f"folder.root={text}"])):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 520


def test_plain_values_stay_what_they_were() -> None:
    text = "d: 2020-01-31\n2020-99-99: x\nyes: no\n0.5: 1e-3\nn: [1, 2.5, 0x1F, ~, .inf]\n"
    text += "b: &b {x: 1}\nc: {<<: *b, y: 2}\n"
    assert safe_yaml.parse(text, "x") == {
        "d": "2020-01-31",
        "2020-99-99": "x",
        "true": False,
        "0.5": "1e-3",
        "n": [1, 2.5, 31, None, float("inf")],
        "b": {"x": 1},
        "c": {"x": 1, "y": 2},
    }
    merged = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b}\nd: *b\n"
    assert safe_yaml.parse(merged, "x")["d"] == {"x": 2}
    assert safe_yaml.parse("", "x") is None


def test_an_override_that_names_no_key_of_a_recipe() -> None:
    values = {"network": {"name": "tiny"}, "data": {"sources": ["folder/day"]}}
    with pytest.raises(InputError, match="no key is nested that deep"):
        recipe.from_values(values, ["network." + "a." * 2000 + "b=1"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.threads=100000", "run.threads: input should be less than or equal to 1024 (got 100000)"),
        ("run.workers=100000", "run.workers: "),
        ("data.crop=[1000000, 32]", "data.crop.0: "),
        ("data.crop=[65536, 65536]", "data.crop: is (height, width) of 4,294,967,296 pixels; give at most 134,217,728"),
        ("evaluate.window=[65536, 65536]", "evaluate.window: "),
        ("evaluate.scales=[1.0e+9]", "evaluate.scales.0: "),
        ("data.scale=[1, 1000]", "data.scale.1: "),
        ("data.scale=[-1, 1]", "data.scale.0: "),
        ("optim.batch=1000000000", "optim.batch: "),
        ("optim.steps=9000000000000000000", "optim.steps: "),
        ("optim.name=" + "x" * 500, "optim.name: "),
    ],
)
def test_numbers_have_bounds(override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe.from_values({"network": {"name": "tiny"}, "data": {"sources": ["folder/day"]}}, [override])
    assert str(caught.value).startswith(f"recipe: {said}")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["99999x99999", "9" * 5000 + "x1", "0x5", "12x", "²x3"])
def test_sizes_of_the_command_line_have_bounds(text: str) -> None:
    with pytest.raises(InputError, match=r"^size '"):
        size_of(text)
    assert size_of("0512x1024") == (512, 1024)
