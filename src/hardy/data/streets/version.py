"""Which bits `streets` draws: its code, and the libraries and the processor that compute with it."""

import ast
import hashlib
import json
from functools import cache
from importlib.resources import files
from platform import machine

import numpy as np
import PIL
from PIL import features

__all__ = ["version"]


@cache
def version() -> str:
    """16 hexadecimal digits that change when the code that draws changes, or what it computes with.

    Comments, docstrings and the layout of the code do not count. numpy's kernels and those of its linear algebra are
    chosen by the processor's instructions, and round differently.
    """
    found = hashlib.blake2b(digest_size=8)
    drawing = [file for file in files("hardy.data.streets").iterdir() if file.name.endswith(".py")]
    for file in [*sorted(drawing, key=lambda file: file.name), files("hardy").joinpath("seed.py")]:
        found.update(f"{file.name}\n{_code(file.read_text('utf-8'))}\n".encode())
    kernels = np.show_config(mode="dicts")["SIMD Extensions"]
    with_what = [np.__version__, kernels, PIL.__version__, features.version("jpg"), machine()]
    found.update(json.dumps(with_what, default=str).encode())
    return found.hexdigest()


def _code(source: str) -> str:
    """The syntax tree of ``source`` without positions, comments, docstrings and other statements that are texts."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
