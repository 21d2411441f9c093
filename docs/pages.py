"""The reference pages: one per kind of method, and the recipe, the command line and the Python names.

Everything on them is read from the code: names, purposes, sources and options from the registry, the rest from
docstrings and signatures. A new method is on its page without an edit here.
"""

import ast
import inspect
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

import hardy
from hardy import cli, recipe
from hardy.registry import Method, Registry

PLURALS = {"criterion": "criteria", "loss": "losses", "weights": "weights"}
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "None"}
SIGNS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
ENTRY = re.compile(r"(\w+): (.*)", re.DOTALL)


def write(folder: Path, kinds: Mapping[str, Registry]) -> None:
    """Write every page into ``folder``, whose old pages are removed first."""
    made = {plural(kind): kind_page(registry) for kind, registry in kinds.items()}
    made |= {"python": python_page(), "recipe": recipe_page(), "command_line": command_line_page()}
    made["index"] = index_page([name for name in made if name not in {"python"}])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in made.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def plural(kind: str) -> str:
    """The page's name for methods of ``kind``."""
    return PLURALS.get(kind, f"{kind}s")


def index_page(names: Sequence[str]) -> str:
    """The page that lists the others."""
    listed = "\n".join(["python", *sorted(names)])
    return f"# Reference\n\nMade from the code each time these pages are built.\n\n```{{toctree}}\n{listed}\n```\n"


def kind_page(registry: Registry) -> str:
    """The methods of one kind: an overview, the interface they share, then each with its options."""
    methods = [registry.describe(name) for name in registry]
    home = Path(find_spec(registry.home).origin)
    parts = [f"# {plural(registry.kind).capitalize()}", class_text(home, registry.interface_name)]
    parts.append(table(("name", "what it is"), ((f"[{m.name}](#{m.name})", plain(m.purpose)) for m in methods)))
    parts.extend(method_text(registry, method) for method in methods)
    return "\n\n".join(parts) + "\n"


def method_text(registry: Registry, method: Method) -> str:
    """One method: its file's docstring, its options, its class's docstring."""
    file = Path(registry.folders()[0]) / f"{method.name}.py"
    rows = ((code(option.name), code(option.shown), code(repr(option.default))) for option in method.options)
    options = table(("option", "type", "default"), rows) if method.options else "No options."
    return "\n\n".join(
        part for part in (f"## {method.name}", module_text(file), options, class_text(file, method.class_name)) if part
    )


def module_text(file: Path) -> str:
    """The docstring of a module, as Markdown."""
    return markdown(ast.get_docstring(_tree(file)) or "")


def class_text(file: Path, name: str) -> str:
    """The docstring of class ``name`` of a module, as Markdown."""
    found = next(node for node in _tree(file).body if isinstance(node, ast.ClassDef) and node.name == name)
    return f"**{code(name)}**: " + markdown(ast.get_docstring(found) or "")


def python_page() -> str:
    """The public names with their signatures and docstrings."""
    parts = ["# Python", "Every public name of `hardy`; sizes are (height, width)."]
    for name in hardy.__all__:
        found = getattr(hardy, name)
        parts += [f"## {name}", f"```python\n{signature(name, found)}\n```", markdown(inspect.getdoc(found) or "")]
    return "\n\n".join(parts) + "\n"


def signature(name: str, function: Any) -> str:
    """``name(arguments) -> result`` as it is written in the source, one argument a line where it is long."""
    node = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(node, ast.FunctionDef)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    short = f"{name}({ast.unparse(node.args)}){result}"
    if len(short) <= 100:
        return short
    given = [str(parameter) for parameter in _arguments(node.args)]
    return f"{name}(\n    " + ",\n    ".join(given) + f",\n){result}"


def recipe_page() -> str:
    """Every section of a recipe with its keys, types and defaults."""
    parts = ["# Recipe", markdown(inspect.getdoc(recipe) or "")]
    schema = recipe.Recipe.model_json_schema()
    for name, section in schema["properties"].items():
        reference = re.search(r"#/\$defs/(\w+)", str(section))
        assert reference, f"section {name} has no model"
        shape, default = schema["$defs"][reference[1]], section.get("default", {})
        parts += [
            f"## {name}",
            plain(shape["description"]),
            table(("key", "type", "default"), _rows(shape["properties"])),
        ]
        for key, value in shape["properties"].items():
            inner = re.search(r"#/\$defs/(\w+)", str(value))
            if inner and not (held := schema["$defs"][inner[1]]).get("additionalProperties", True):
                rows = _rows(held["properties"])
                parts += [f"### {name}.{key}", plain(held["description"]), table(("key", "type", "default"), rows)]
        if default is None or list(default) == ["name"]:
            parts.append(f"Without this section: {code(repr(default))}.")
    return "\n\n".join(parts) + "\n"


def command_line_page() -> str:
    """Every verb with its arguments and options."""
    app = typer.main.get_command(cli.app)
    parts = ["# Command line", plain(app.help or "")]
    for name, command in sorted(app.commands.items()):
        rows = (
            (code(", ".join(p.opts) if p.opts[0].startswith("-") else p.name), plain(getattr(p, "help", None) or ""))
            for p in command.params
        )
        parts += [f"## hardy {name}", plain(command.help or ""), table(("argument", "what it is"), rows)]
    return "\n\n".join(parts) + "\n"


def markdown(docstring: str) -> str:
    """A docstring of this house as Markdown: sections become lists, indented formulas code, the rest plain text."""
    return "\n\n".join(_paragraph(text) for text in re.split(r"\n\s*\n", docstring) if text.strip())


def plain(text: str) -> str:
    """``text`` with everything that Markdown would read as markup escaped, outside its `code`."""
    pieces = re.split(r"(``.+?``|`[^`]+`)", text, flags=re.DOTALL)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<\[\]|$])", r"\\\1", p) for p in pieces)


def code(text: str) -> str:
    """``text`` as code in a table's cell."""
    return f"`{text}`".replace("|", r"\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines)


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    if SECTION.match(lines[0]):
        entries = re.split(r"\n(?=    \S)", "\n" + "\n".join(lines[1:]))
        return f"**{lines[0][:-1]}**\n\n" + "\n".join(_entry(" ".join(e.split())) for e in entries if e.strip())
    if lines[0].startswith(">>> "):
        return f"```python\n{text}\n```"
    if all(line.startswith("    ") for line in lines):
        return "```text\n" + inspect.cleandoc(text) + "\n```"
    return plain(text)


def _entry(text: str) -> str:
    found = ENTRY.match(text)
    return f"- `{found[1]}`: {plain(found[2])}" if found else f"- {plain(text)}"


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    yield from (_argument(a, d) for a, d in zip(positional, defaults, strict=True))
    if arguments.vararg:
        yield f"*{ast.unparse(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    yield from (_argument(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def _rows(properties: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key, value in properties.items():
        yield code(key), code(_type(value)), code(repr(value["default"])) if "default" in value else "must be given"


def _type(schema: Mapping[str, Any]) -> str:
    """The type that a JSON schema describes, as Python would write it, with its bounds."""
    if "anyOf" in schema:
        return " | ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(repr(choice) for choice in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema or schema.get("type") == "object":
        return "mapping"
    if "prefixItems" in schema:
        return f"[{', '.join(map(_type, schema['prefixItems']))}]"
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    bounds = "".join(f" {sign} {schema[bound]}" for bound, sign in SIGNS.items() if bound in schema)
    return TYPES[schema["type"]] + bounds


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
