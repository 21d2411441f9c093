"""What the registry reads with `ast` is what Python itself would say, and what it refuses it refuses in plain words."""

import inspect
import json
import re
import sys
from pathlib import Path

import pytest

from hardy.errors import InputError, nearest
from hardy.registry import CRITERIA, KINDS, LOSSES, Registry

METHODS = [(kind, name) for kind, registry in KINDS.items() for name in registry]

TOY = '''"""Adds up.

More about it.

Source: A. Person,
Some Venue 2020, eq. 3.
"""
from collections.abc import Sequence
from typing import Literal

raise RuntimeError("describing must not run the module")


class _Private:
    pass


class Adder:
    def __init__(self, given: object, *, weight: float = 1.0, mode: Literal["sum", "mean"] = "sum",
                 sizes: Sequence[int] = (1, 2), name: str | None = None) -> None:
        pass
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry over a package in a temporary folder that holds ``adder``, a base and a private module."""
    folder = tmp_path / "toys_of_a_test"
    folder.mkdir()
    for name, text in {"__init__": "", "base": "", "_hidden": "", "adder": TOY}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("toy", "toys_of_a_test", "Toy")
    sys.modules.pop("toys_of_a_test", None)


def test_every_kind_is_found_under_its_own_name() -> None:
    assert list(KINDS) == sorted(KINDS)
    assert all(registry.kind == kind for kind, registry in KINDS.items())


def test_what_is_read_from_the_source_is_the_signature() -> None:
    wrong = []
    for kind, name in METHODS:
        method, found = KINDS[kind].describe(name), KINDS[kind].get(name)
        parameters = inspect.signature(found.__init__).parameters.values()
        keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        read = [(option.name, option.default, option.annotation()) for option in method.options]
        same = read == [(p.name, p.default, p.annotation) for p in keywords]
        if found.__name__ != method.class_name or not issubclass(found, KINDS[kind].interface) or not same:
            wrong.append(f"{kind} {name}: {read}")
    assert not wrong, "\n".join(wrong)


def test_defaults_pass_their_own_check_and_survive_being_written() -> None:
    wrong = []
    for kind, name in METHODS:
        method = KINDS[kind].describe(name)
        complete = method.check({})
        written = json.dumps(complete)
        again = json.dumps(method.check(json.loads(written)))
        if list(complete) != [option.name for option in method.options] or again != written:
            wrong.append(f"{kind} {name}: {written}, again {again}")
    assert not wrong, "\n".join(wrong)


def test_every_method_says_what_it_is_and_where_it_comes_from() -> None:
    wrong = []
    for kind, name in METHODS:
        method = KINDS[kind].describe(name)
        wrong += [f"{kind} {name}: a purpose of {len(method.purpose)} characters"] * (
            not 20 < len(method.purpose) <= 140
        )
        wrong += [f"{kind} {name}: no paragraph of the module docstring begins 'Source:'"] * (not method.source)
        if kind in ("algorithm", "criterion"):
            wrong += [f"{kind} {name}: its purpose is no sentence"] * (not method.purpose.endswith("."))
            wrong += [f"{kind} {name}: needs_domains is below 1"] * (KINDS[kind].get(name).needs_domains < 1)
    assert not wrong, "\n".join(wrong)


def test_describing_reads_and_never_runs(toys: Registry) -> None:
    assert toys.names() == ["adder"]
    method = toys.describe("adder")
    assert (method.class_name, method.purpose) == ("Adder", "Adds up.")
    assert method.source == "A. Person, Some Venue 2020, eq. 3."
    assert [option.default for option in method.options] == [1.0, "sum", (1, 2), None]
    with pytest.raises(RuntimeError, match="must not run"):
        toys.get("adder")


def test_options_are_completed_and_converted(toys: Registry) -> None:
    complete = toys.describe("adder").check({"weight": "1e-3", "sizes": [4, 5]})
    assert complete == {"weight": 0.001, "mode": "sum", "sizes": [4, 5], "name": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wieght": 1}, "Adder has no option 'wieght'; did you mean 'weight'?; it has: weight, mode, sizes, name"),
        ({"weight": "much"}, "Adder.weight: .* (got 'much')"),
        ({"mode": "max"}, "Adder.mode: input should be 'sum' or 'mean' (got 'max')"),
        ({"sizes": [1, "x"]}, "Adder.sizes.1: .* (got 'x')"),
        ({"name": 3}, "Adder.name: .* (got 3)"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(toys: Registry, options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        toys.describe("adder").check(options)
    assert re.fullmatch(re.escape(message).replace(r"\.\*", ".*"), str(caught.value))


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all(toys: Registry) -> None:
    with pytest.raises(InputError, match=r"^there is no toy 'ader'; did you mean 'adder'\?; there are: adder$"):
        toys.describe("ader")
    with pytest.raises(InputError, match=r"^there is no toy 'zzz'; there are: adder$"):
        toys.get("zzz")
    with pytest.raises(InputError, match="no toy 'base'"):
        toys.get("base")
    assert nearest("zzz", ["adder"]) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class One: ...\nclass Two: ...\n", "exactly one public class; found One, Two"),
        ("x = 1\n", "exactly one public class; found none"),
        ("class One:\n    def __init__(self, *, weight=1.0): ...\n", "'weight' of One needs a type and a default"),
        ("class One:\n    def __init__(self, *, weight: float): ...\n", "'weight' of One needs a type and a default"),
    ],
)
def test_a_file_that_breaks_the_rule_is_named(toys: Registry, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "toys_of_a_test" / "broken.py"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        toys.describe("broken")
    assert str(file) in str(caught.value)


def test_a_class_outside_is_found_by_module_and_class(toys: Registry, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(TOY)
    assert toys.describe("theirs:Adder").check({"weight": 2})["weight"] == 2.0
    with pytest.raises(InputError, match="toy 'nowhere:Adder': no module 'nowhere' can be imported from here"):
        toys.describe("nowhere:Adder")
    with pytest.raises(InputError, match="found none"):
        toys.describe("theirs:Divider")


def test_a_class_of_another_kind_is_refused() -> None:
    loss = LOSSES.names()[0]
    outside = f"{LOSSES.package}.{loss}:{LOSSES.describe(loss).class_name}"
    assert LOSSES.get(outside) is LOSSES.get(loss)
    with pytest.raises(InputError, match=r"is not a criterion: .* does not implement Criterion"):
        CRITERIA.get(outside)


def test_a_name_in_another_case_is_unknown_where_files_ignore_case(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda _: True)
    with pytest.raises(InputError, match="there is no criterion 'IOR'"):
        KINDS["criterion"].describe("IOR")
