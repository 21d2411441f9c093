"""Multi-path architectures: branches of searched cells at strides 8, 16 and 32, as JSON (``multipath/1``).

``{"format": "multipath/1", "Fch": 12, "stem": {"width": 8}, "head_width": 8, "branches": [{"last": 2, "ops": [...],
"path": [...], "widths": [...]}, ...]}``. ``num_classes`` and ``meta``, which describe the search, are optional.

A branch is a list of layers. Layer i applies ``ops[i]`` at scale ``path[i]``; scales 0, 1, 2 are strides 8, 16, 32. The
next layer's scale is ``path[i + 1]``, and a layer whose next scale is coarser has stride 2. Its output has
``8 * 2^s * Fch * widths[i] / 12`` channels at its output scale s. The last layer has the head's width and stays at
scale ``last``. Branches share their first layers as far as these are equal; a last layer is never shared.

Source: Chen, Gong, Liu, Zhang, Li and Wang, "FasterSeg: searching for faster real-time semantic segmentation",
ICLR 2020, section 3; the layout of the file is Hardy's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardy.errors import InputError, nearest
from hardy.files import expanded
from hardy.stored import read_json

__all__ = ["OPS", "PUBLISHED", "WIDTHS", "Architecture", "Branch", "Layer", "content", "parse", "read"]

FORMAT = "multipath/1"
OPS = ("conv", "conv_2x", "conv_downup", "conv_2x_downup")
WIDTHS = (4, 6, 8, 10, 12)
"""Allowed widths, in twelfths of the full width."""

FOLDER = Path(__file__).parent
PUBLISHED = {"student": FOLDER / "fasterseg_student.json", "teacher": FOLDER / "fasterseg_teacher.json"}


@dataclass(frozen=True)
class Layer:
    """One layer of a branch.

    Attributes:
        op: one of `OPS`.
        scale: scale of its output; 0, 1, 2 for strides 8, 16, 32.
        stride: 1 or 2.
        channels: channels of its output.
    """

    op: str
    scale: int
    stride: int
    channels: int


@dataclass(frozen=True)
class Branch:
    """The layers of one branch as in the file; see the module."""

    last: int
    ops: tuple[str, ...]
    path: tuple[int, ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """A multi-path architecture.

    Attributes:
        filters: Fch, an eighth of the channels at stride 8 and full width.
        stem_width: width of the layers before the branches, in twelfths.
        head_width: width of the last layers of the branches and of the layers after them, in twelfths.
        branches: one or more branches.
    """

    filters: int
    stem_width: int
    head_width: int
    branches: tuple[Branch, ...]

    def channels(self, multiple: int, width: int) -> int:
        """``multiple * Fch * width / 12``, rounded, at least 1."""
        return max(1, round(multiple * self.filters * width / 12))

    def layers(self, branch: Branch) -> list[Layer]:
        """The layers of ``branch``."""
        after = (*branch.path[1:], branch.last)
        widths = (*branch.widths, self.head_width)
        return [
            Layer(op, scale, 1 + scale - before, self.channels(8 * 2**scale, width))
            for op, before, scale, width in zip(branch.ops, branch.path, after, widths, strict=True)
        ]

    def shared(self) -> tuple[list[tuple[int, Layer]], list[list[int]]]:
        """The cells, shared ones once, and the sequence of cells of each branch.

        Returns:
            for each cell the index of the cell before it (-1 for the stem) and its layer; and for each branch the
            indices of its cells in order.
        """
        cells: list[tuple[int, Layer]] = []
        known: dict[tuple[int, Layer], int] = {}
        routes = []
        for branch in self.branches:
            place, route = -1, []
            *inner, last = self.layers(branch)
            for layer in inner:
                if (place, layer) not in known:
                    known[place, layer] = len(cells)
                    cells.append((place, layer))
                place = known[place, layer]
                route.append(place)
            cells.append((place, last))
            routes.append([*route, len(cells) - 1])
        return cells, routes


def content(architecture: Architecture, **meta: Any) -> dict[str, Any]:
    """The file content of ``architecture``, with ``meta`` if given; `parse` is the inverse."""
    branches = [
        {"last": of.last, "ops": list(of.ops), "path": list(of.path), "widths": list(of.widths)}
        for of in architecture.branches
    ]
    return {
        "format": FORMAT,
        "Fch": architecture.filters,
        "stem": {"width": architecture.stem_width},
        "head_width": architecture.head_width,
        "branches": branches,
        **({"meta": meta} if meta else {}),
    }


def read(file: str | Path) -> dict[str, Any]:
    """The content of a JSON file, not yet checked.

    Raises:
        InputError: for a file that does not exist or is not a JSON object.
    """
    file = expanded(file)
    if not file.is_file():  # reading a pipe or a device may never end
        raise InputError(f"arch {str(file)!r}: no such file; give {', '.join(PUBLISHED)}, or a JSON file")
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise InputError(f"arch {str(file)!r}: cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"arch {str(file)!r}: holds a {type(found).__name__}, but a {FORMAT} file holds an object")
    return found


def parse(found: Mapping[str, Any], source: str) -> Architecture:
    """The architecture that ``found`` describes.

    Args:
        found: the content of a file; see the module.
        source: its name in messages.

    Raises:
        InputError: naming the key, its value and the allowed values.
    """
    needed = ("format", "Fch", "stem", "head_width", "branches")
    _keys(found, needed, source, optional=("num_classes", "meta"))
    if found["format"] != FORMAT:
        raise InputError(f"{source}: format is {found['format']!r}; it must be {FORMAT!r}")
    stem = found["stem"]
    if not isinstance(stem, Mapping):
        raise InputError(f'{source}: stem is {stem!r}; it must be {{"width": ...}}')
    _keys(stem, ("width",), f"{source}: stem")
    branches = _list(found["branches"], f"{source}: branches")
    if not branches:
        raise InputError(f"{source}: branches is empty; give at least one")
    filters = found["Fch"]
    if not _whole(filters) or filters < 1:
        raise InputError(f"{source}: Fch is {filters!r}; it must be a whole number of 1 or more")
    return Architecture(
        filters,
        _one_of(stem["width"], WIDTHS, f"{source}: stem.width"),
        _one_of(found["head_width"], WIDTHS, f"{source}: head_width"),
        tuple(_branch(branch, f"{source}: branches[{place}]") for place, branch in enumerate(branches)),
    )


def _branch(found: Any, where: str) -> Branch:
    if not isinstance(found, Mapping):
        raise InputError(f"{where} is {found!r}; it must be an object")
    _keys(found, ("last", "ops", "path", "widths"), where)
    last = _one_of(found["last"], (0, 1, 2), f"{where}.last")
    ops, path, widths = (_list(found[key], f"{where}.{key}") for key in ("ops", "path", "widths"))
    for place, op in enumerate(ops):
        _one_of(op, OPS, f"{where}.ops[{place}]")
    for place, width in enumerate(widths):
        _one_of(width, WIDTHS, f"{where}.widths[{place}]")
    for place, scale in enumerate(path):
        _one_of(scale, (0, 1, 2), f"{where}.path[{place}]")
    if not ops or len(path) != len(ops) or len(widths) != len(ops) - 1:
        counts = f"{len(ops)} ops, {len(path)} scales in path and {len(widths)} widths"
        raise InputError(f"{where} has {counts}; it must have n >= 1, n and n - 1")
    if path[0] != 0:
        raise InputError(f"{where}.path starts at {path[0]}; a branch starts at scale 0")
    steps = [(place, path[place], path[place + 1]) for place in range(len(path) - 1)]
    for place, here, then in steps:
        if then - here not in {0, 1}:
            raise InputError(f"{where}.path goes from {here} to {then} after layer {place}; it may stay or go up by 1")
    if path[-1] != last:
        raise InputError(f"{where}.path ends at {path[-1]} and last is {last}; they must be equal")
    return Branch(last, tuple(ops), tuple(path), tuple(widths))


def _keys(found: Mapping[str, Any], needed: Sequence[str], where: str, *, optional: Sequence[str] = ()) -> None:
    for key in found:
        if key not in (*needed, *optional):
            have = ", ".join((*needed, *optional))
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), (*needed, *optional))}; known: {have}")
    for key in needed:
        if key not in found:
            raise InputError(f"{where}: {key} is missing")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(value: Any, allowed: Sequence[Any], where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in allowed:
        hint = nearest(value, allowed) if isinstance(value, str) and isinstance(allowed[0], str) else ""
        raise InputError(f"{where} is {value!r}{hint}; it must be one of: {', '.join(map(str, allowed))}")
    return value


def _list(found: Any, where: str) -> list[Any]:
    if not isinstance(found, list | tuple):
        raise InputError(f"{where} is {found!r}; it must be a list")
    return list(found)
