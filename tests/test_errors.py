"""A message is one line that stays readable whatever was quoted in it."""

import pytest
from pydantic import BaseModel, ValidationError

from hardy.errors import InputError, shortened, worded


@pytest.mark.parametrize(
    "value",
    ["a" * 5000, "a b " * 1000, "it's " + "a" * 300, 'say "it\'s" ' + "a" * 300, [0] * 1000, {"a": ["b" * 99] * 9}],
)
def test_a_quoted_value_is_cut_to_80_characters(value):
    text = str(InputError(f"file.yaml: x: unknown {value!r}; did you mean 'y'? There are: a, b"))
    assert text.startswith("file.yaml: x: unknown ")
    assert text.endswith("; did you mean 'y'? There are: a, b")
    shown = text.removeprefix("file.yaml: x: unknown ").removesuffix("; did you mean 'y'? There are: a, b")
    assert len(shown) == 80
    assert shown.startswith(repr(value)[:57])
    assert shown.endswith(repr(value)[-20:])


def test_a_long_number_or_word_is_cut():
    assert str(InputError(f"optim.lr: {'9' * 5000} is out of range")) == (
        f"optim.lr: {'9' * 57}...{'9' * 20} is out of range"
    )


@pytest.mark.parametrize(
    "text",
    [
        "/a/" + "long/" * 40 + "file.yaml: Hardy's network's plan isn't here, and the folders' names aren't known",
        "there are: " + ", ".join(f"method_{number}" for number in range(99)),
        f"'{'a' * 78}' and {[1] * 20}",
        "'unclosed and [open {too " + "word " * 99,
        "",
    ],
)
def test_prose_paths_lists_of_names_and_short_values_stay(text):
    assert shortened(text) == text


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("96x192", "data.size: input should be a valid list (got '96x192'); write [96, 192]"),
        ("96", "data.size: input should be a valid list (got '96')"),
        ([96], "data.size.1: field required (got [96])"),
    ],
)
def test_a_size_of_a_wrong_form_is_told_with_the_right_one(given, line):
    class Section(BaseModel):
        size: tuple[int, int]

    with pytest.raises(ValidationError) as caught:
        Section(size=given)
    problem = caught.value.errors()[0]
    assert worded(".".join(["data", *map(str, problem["loc"])]), problem) == line
