"""The pages say what is true: their code runs, their paths exist, their reference is the code's."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from hardy.data.datasets import streets
from hardy.pruning import criteria
from hardy.registry import CRITERIA, KINDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("benchmarks/*.md")),
]


def fenced(file: Path, language: str) -> list[str]:
    """The code blocks of ``language`` in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that makes the reference."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import pages

    return pages


def test_the_criterion_of_contributing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, test = fenced(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "norm_scale.py").write_text(method, encoding="utf-8")
    monkeypatch.setattr(criteria, "__path__", [*criteria.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "hardy.pruning.criteria.norm_scale", raising=False)
    assert [option.name for option in CRITERIA.describe("norm_scale").options] == ["power"]
    space: dict[str, object] = {}
    exec(compile(test, "CONTRIBUTING.md", "exec"), space)
    tests = [value for name, value in space.items() if name.startswith("test_")]
    assert tests
    for run in tests:
        run()


@pytest.mark.slow
@pytest.mark.exhaustive  # test_pipeline goes the same way with fewer steps
def test_the_ten_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = fenced(ROOT / "README.md", "python")
    few = '{"streets": {"train": 8, "val": 1, "test": 1}}'
    for whole, brief in {
        '"fast_scnn"': '"tiny"',
        'steps=300, optim={"name": "adamw", "lr": 2e-3}': 'steps=1, optim={"batch": 4}',
        '"recovery": 100}': '"recovery": 1, "schedule": {"name": "one_shot", "batches": 1}}, optim={"batch": 4}',
        "against=net": "against=net, runs=2, warm_up=1",
        '"crop": [128, 256]': f'"crop": [128, 256], "datasets": {few}',
        '"streets/fog"],': f'"streets/fog"], datasets={few},',
        "[128, 256]": "[64, 128]",
    }.items():
        assert whole in text
        text = text.replace(whole, brief)

    def photograph(_domain: object, size: tuple[int, int], _seed: int, _place: object) -> tuple[np.ndarray, np.ndarray]:
        return np.full((*size, 3), 90, np.uint8), np.tile(np.arange(size[1], dtype=np.uint8) % 19, (size[0], 1))

    monkeypatch.setattr(streets, "photograph", photograph)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save("photos/one.png")
    exec(compile(text, "README.md", "exec"), {})
    made = {"runs/dense/network.safetensors", "runs/small/recipe.yaml", "small.onnx", "masks/one.png"}
    assert not (missing := sorted(name for name in made if not (tmp_path / name).exists())), missing


def test_every_path_of_the_readme_tree_exists_and_nothing_is_left_out() -> None:
    (tree,) = (block for block in fenced(ROOT / "README.md", "text") if "src/hardy/" in block)
    named, folders = set(), []
    for line in tree.splitlines():
        indent, entry = re.match(r"( *)(\S+)", line).groups()
        folders = folders[: len(indent) // 2]
        named.add("".join([*folders, entry]))
        if entry.endswith("/"):
            folders.append(entry)
    assert not (missing := sorted(path for path in named if not (ROOT / path).exists())), missing
    inside = (ROOT / "src" / "hardy").iterdir()
    rooms = {path for path in inside if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py")}
    listed = {(ROOT / path).resolve() for path in named}
    assert not (unlisted := sorted(path.name for path in rooms if path.resolve() not in listed)), unlisted


def test_links_and_commands_lead_somewhere() -> None:
    words = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
            made_at_build = target.startswith("reference/")
            wrong += [f"{page.name}: {target}"] * (not made_at_build and not (page.parent / target).exists())
        for line in re.findall(r"^make ([a-z -]+)", text, re.MULTILINE):
            wrong += [f"{page.name}: make {line}"] * (not set(line.split()) <= words)
    assert not wrong, wrong


@pytest.mark.slow
def test_the_reference_has_every_method_with_every_option(pages: ModuleType) -> None:
    missing = []
    for kind, registry in KINDS.items():
        text = pages.kind_page(registry)
        for name in registry:
            section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
            options = [option.name for option in registry.describe(name).options]
            missing += [f"{kind} {name}.{option}" for option in options if f"| `{option}` |" not in section]
    assert not missing, missing


@pytest.mark.slow
def test_the_reference_has_every_public_name_and_recipe_key(pages: ModuleType) -> None:
    import hardy
    from hardy.recipe import Optim

    text = pages.python_page()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(hardy.__all__)
    assert all(f"| `{key}` |" in pages.recipe_page() for key in Optim.model_fields)


def test_docstrings_become_markdown(pages: ModuleType) -> None:
    arguments = "Args:\n    size: (H, W)\n        in pixels.\n    other: 1 < 2."
    text = f"First *line* with `code_a`.\n\n    a_i = b * c\n\n{arguments}"
    assert pages.markdown(text) == (
        "First \\*line\\* with `code_a`.\n\n```text\na_i = b * c\n```\n\n"
        "**Args**\n\n- `size`: (H, W) in pixels.\n- `other`: 1 \\< 2."
    )
    assert pages.table(("a", "b"), [(pages.code("int | None"), "x")]).endswith("| `int \\| None` | x |")
