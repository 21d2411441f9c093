"""The rules of the house: which way the arrows point, how long things are, what they are called."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardy.registry import KINDS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
OURS = sorted(file for folder in ("src", "tests", "benchmarks", "docs") for file in (ROOT / folder).rglob("*.py"))
SHIPPED = [file for file in OURS if file.is_relative_to(SOURCE)]
BANNED = {"utils", "util", "core", "common", "helpers", "helper", "manager", "handler", "misc", "tools"}

# Highest floor first. A room calls into itself and into lower floors, never into another room of its own floor.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"commands"},
    {"engine", "report"},
    {"searching"},
    {"algorithms"},
    {"distillation", "pruning", "tuning", "adaptation"},
    {"networks"},
    {"losses", "blocks", "ops", "data", "metrics"},
    {"schema"},
    {"recipe", "records"},
    {"registry", "safe_yaml", "lock"},
    {"sections"},
    {"stored", "trust", "files"},
    {"types", "seed", "errors"},
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
ONLY = {
    "report": {"records", "errors", "files"},
    "recipe": {"registry", "errors", "sections", "safe_yaml", "files", "stored", "trust"},
    "records": {"errors", "stored"},
}
"""Rooms that may call fewer rooms than their floor allows."""


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE / "hardy").parts[0].removesuffix(".py")


def rooms_called(file: Path) -> Iterator[str]:
    """The rooms of Hardy that ``file`` imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)}:{node.lineno}: imports are absolute"
            inside = node.module == "hardy"
            names = [f"hardy.{a.name}" for a in node.names if a.name in LEVEL] if inside else [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("hardy."))


def wrong_arrows(room: str, called: set[str]) -> set[str]:
    """The rooms that ``room`` may not call, of those it does."""
    allowed = ONLY.get(room) or {other for other in LEVEL if LEVEL[other] > LEVEL[room]}
    return called - allowed - {room}


@pytest.mark.parametrize("file", [file for file in SHIPPED if room_of(file) != "__init__"], ids=name_of)
def test_arrows_point_down(file: Path) -> None:
    room = room_of(file)
    assert room in LEVEL, f"no room {room!r} in the picture of the house: give it a floor here and in docs/concepts.md"
    assert not (wrong := wrong_arrows(room, set(rooms_called(file)))), f"{room} may not call {sorted(wrong)}"


def test_the_rule_itself_catches_a_wrong_arrow() -> None:
    assert wrong_arrows("pruning", {"engine", "networks", "tuning", "pruning"}) == {"engine", "tuning"}
    assert wrong_arrows("report", {"records", "metrics"}) == {"metrics"}


@pytest.mark.parametrize("file", OURS, ids=name_of)
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 300, "a file past 300 lines wants another room"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines"


@pytest.mark.parametrize("file", SHIPPED, ids=name_of)
def test_names_places_and_manners(file: Path) -> None:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    assert not BANNED & {word for part in parts for word in part.strip("_").split("_")}
    assert len(parts) - 1 <= 3, "at most three levels of folders"
    banned_calls = {"hasattr"} | (set() if room_of(file) == "cli" else {"print"})
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in banned_calls, f"line {node.lineno} calls {node.func.id}"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind]])
def test_a_method_is_one_public_class_in_its_own_file(kind: str, name: str) -> None:
    folder = SOURCE / Path(*KINDS[kind].package.split("."))
    tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
    public = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    assert len(public) == 1
    method = KINDS[kind].describe(name)
    assert method.purpose, "the first line of the module says what the method is"
    assert len(method.options) <= 8, "at most eight options"
