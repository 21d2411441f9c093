"""The rules of the house: which way the arrows point, how long things are, what they are called."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

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
    {"studies", "report"},
    {"engine"},
    {"timing"},
    {"deployment"},
    {"searching"},
    {"algorithms"},
    {"distillation", "pruning", "tuning", "adaptation"},
    {"networks"},
    {"losses", "blocks", "ops", "data", "metrics"},
    {"schema"},
    {"recipe", "records", "counts", "curves", "pictures"},
    {"choices"},
    {"registry", "safe_yaml", "lock"},
    {"sections", "stored", "trust", "files", "device"},
    {"types", "seed", "ties", "ranges", "former"},
    {"errors"},
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
ONLY = {
    "report": {"records", "counts", "curves", "pictures", "errors", "files"},
    "recipe": {"choices", "errors", "sections", "safe_yaml", "files", "stored", "trust"},
    "records": {"errors", "lock", "stored"},
}
"""Rooms that may call fewer rooms than their floor allows."""


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE / "hardy").parts[0].removesuffix(".py")


def rooms_called(file: Path) -> Iterator[str]:
    """The rooms of Hardy that ``file`` imports, wherever in the file it does so."""
    for node in statements(tree_of(file)):
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


@cache
def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement in ``node``, however deep; what is in no expression is found here in a tenth of the time."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        found = getattr(node, name, ())
        for inner in found if isinstance(found, list) else ():
            yield inner
            yield from statements(inner)


def trees() -> Iterator[tuple[Path, str, ast.Module]]:
    """Each file of ours with its text and its syntax tree."""
    for file in OURS:
        yield file, file.read_text(encoding="utf-8"), tree_of(file)


def code_lines(text: str, nodes: Iterable[ast.AST]) -> int:
    """The lines of code in ``text`` of these nodes: docstrings, comments and blank lines do not count."""
    silent = set()
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            silent.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and n not in silent for n, line in lines)


def test_arrows_point_down() -> None:
    rooms = [(file, room_of(file)) for file in SHIPPED if room_of(file) != "__init__"]
    unknown = sorted({room for _, room in rooms} - set(LEVEL))
    assert not unknown, f"give {unknown} a floor here and in docs/concepts.md"
    wrong = {name_of(file): found for file, room in rooms if (found := wrong_arrows(room, set(rooms_called(file))))}
    assert not wrong


def circles(calls: dict[str, set[str]]) -> list[str]:
    """The modules that reach themselves by what they import."""
    reached = {name: set(found) for name, found in calls.items()}
    for middle in calls:
        for found in reached.values():
            if middle in found:
                found |= reached[middle]
    return sorted(name for name, found in reached.items() if name in found)


def test_pruning_has_no_import_circles() -> None:
    calls = {}
    for file in SHIPPED:
        if room_of(file) == "pruning":
            name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
            nodes = [n for n in statements(tree_of(file)) if isinstance(n, ast.ImportFrom)]
            calls[name] = {n.module or "" for n in nodes}
            calls[name] |= {f"{n.module}.{alias.name}" for n in nodes for alias in n.names}
    assert not circles(calls)
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]


def test_the_rules_themselves_catch_what_they_forbid() -> None:
    assert wrong_arrows("pruning", {"engine", "networks", "tuning", "pruning"}) == {"engine", "tuning"}
    assert wrong_arrows("report", {"records", "metrics"}) == {"metrics"}
    text = '"""Two\nlines."""\n\nA = 1\n"""Of A."""\n# why\nB = """\n\nx"""  # both\n'
    assert code_lines(text, statements(ast.parse(text))) == 3


def test_files_and_functions_stay_short() -> None:
    long = []
    for file, text, tree in trees():
        nodes = list(statements(tree))
        if (lines := code_lines(text, nodes)) > 300:
            long.append(f"{name_of(file)}: {lines} lines of code want another room")
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                long += [f"{name_of(file)}: {node.name} has {length} lines"] * (length > 50)
    assert not long, "\n".join(long)


def test_names_places_and_manners() -> None:
    wrong = []
    for file in SHIPPED:
        parts = file.relative_to(SOURCE).with_suffix("").parts
        words = {word for part in parts for word in part.strip("_").split("_")}
        wrong += [f"{name_of(file)}: says nothing by {sorted(found)}"] if (found := BANNED & words) else []
        wrong += [f"{name_of(file)}: more than three levels of folders"] * (len(parts) - 1 > 3)
        banned_calls = {"hasattr"} | (set() if room_of(file) == "cli" else {"print"})
        named = any(word in file.read_text(encoding="utf-8") for word in banned_calls)
        for node in ast.walk(tree_of(file)) if named else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned_calls:
                wrong.append(f"{name_of(file)}:{node.lineno} calls {node.func.id}")
    assert not wrong, "\n".join(wrong)


def test_a_method_is_one_public_class_in_its_own_file() -> None:
    wrong = []
    for registry in KINDS.values():
        for name in registry:
            tree = ast.parse((SOURCE / Path(*registry.package.split(".")) / f"{name}.py").read_text(encoding="utf-8"))
            public = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
            method = registry.describe(name)
            wrong += [f"{registry.kind} {name}: public classes {public}, not one"] * (len(public) != 1)
            wrong += [f"{registry.kind} {name}: its docstring's first line says what it is"] * (not method.purpose)
            wrong += [f"{registry.kind} {name}: {len(method.options)} options, at most 8"] * (len(method.options) > 8)
    assert not wrong, "\n".join(wrong)
