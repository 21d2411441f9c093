"""Label spaces: the classes a network predicts, and the maps onto them from raw ids, colours and other spaces.

A `LabelSpace` names K classes; their ids are 0..K-1, and 255 means ignored. A `RawMap` or a `ColourMap`
(`hardy.data.rawmap`) converts the pixels of a mask file to these ids. `convert` gives the declared many-to-one map from
one space onto another. A user's own space is read from a ``classes.yaml``; see `read_classes`.

Ids, colours and maps: Cityscapes (Cordts et al., CVPR 2016; cityscapesScripts), CamVid in the 11 classes of SegNet
(Brostow et al., PRL 2009; Badrinarayanan et al., TPAMI 2017), IDD level 1 (Varma et al., WACV 2019), PACS
(Li et al., ICCV 2017).
"""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardy import safe_yaml
from hardy.data.rawmap import IGNORE, Colour, ColourMap, RawMap
from hardy.errors import InputError, nearest, quoted
from hardy.files import expanded
from hardy.stored import is_integer

__all__ = ["CITYSCAPES_IDS", "MEANS", "SPACES", "Classes", "LabelSpace", "convert", "find_label_space", "read_classes"]

_MOST_CLASSES = 255


@dataclass(frozen=True)
class LabelSpace:
    """The K classes a network predicts, in the order of their ids.

    Attributes:
        name: of the space: ``cityscapes19``, or the folder of a ``classes.yaml``.
        classes: the class names; the id of a class is its index.
        colours: an RGB colour (0..255) for each class.

    Raises:
        InputError: for no or more than 255 classes, a name that occurs twice, or colours that do not match the classes.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.classes) <= _MOST_CLASSES:
            raise InputError(
                f"label space {self.name!r} has {len(self.classes)} classes; it needs 1 to {_MOST_CLASSES}"
            )
        if twice := [name for name in self.classes if self.classes.count(name) > 1]:
            raise InputError(f"label space {self.name!r} has two classes named {twice[0]!r}")
        if len(self.colours) != len(self.classes):
            raise InputError(f"label space {self.name!r}: {len(self.colours)} colours for {len(self.classes)} classes")
        for colour in self.colours:
            three = isinstance(colour, tuple) and len(colour) == 3
            if not three or not all(is_integer(part) and part <= 255 for part in colour):
                raise InputError(f"label space {self.name!r}: colour {colour!r} is not three numbers from 0 to 255")

    def __len__(self) -> int:
        return len(self.classes)

    def index(self, class_name: str) -> int:
        """The id of ``class_name``.

        Raises:
            InputError: for an unknown class; the message names the nearest one.
        """
        if class_name not in self.classes:
            hint = nearest(class_name, self.classes)
            raise InputError(f"label space {self.name!r} has no class {class_name!r}{hint}")
        return self.classes.index(class_name)

    def to_json(self) -> dict[str, Any]:
        """The space as plain lists and strings, for `from_json`."""
        return {"name": self.name, "classes": list(self.classes), "colours": [list(c) for c in self.colours]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "LabelSpace":
        """The space that `to_json` wrote.

        Raises:
            InputError: for a missing or malformed entry.
        """
        if not isinstance(record, Mapping) or not {"name", "classes", "colours"} <= set(record):
            raise InputError(f"the label space is {quoted(record)}; it must have name, classes and colours")
        name, classes, colours = record["name"], record["classes"], record["colours"]
        if not isinstance(classes, list) or not all(isinstance(word, str) for word in (name, *classes)):
            raise InputError(
                f"the label space's name {name!r} and classes {classes!r} must be text and a list of texts"
            )
        if not isinstance(colours, list):
            raise InputError(f"label space {name!r}: colours {colours!r} must be a list with a colour for each class")
        return cls(name, tuple(classes), tuple(tuple(each) if isinstance(each, list) else each for each in colours))


# ---------------------------------------------------------------------------------------------- the built-in spaces

_CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "light": (250, 170, 30),
    "sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
_CAMVID = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
_IDD = {
    "drivable": (128, 64, 128),
    "non-drivable": (244, 35, 232),
    "living things": (220, 20, 60),
    "vehicles": (0, 0, 142),
    "road-side objects": (220, 220, 0),
    "far objects": (70, 70, 70),
    "sky": (70, 130, 180),
}
_PACS = {
    "dog": (31, 119, 180),
    "elephant": (255, 127, 14),
    "giraffe": (44, 160, 44),
    "guitar": (214, 39, 40),
    "horse": (148, 103, 189),
    "house": (140, 86, 75),
    "person": (227, 119, 194),
}
_RETINA = {"background": (30, 30, 30), "vessel": (220, 60, 60)}

SPACES = {
    name: LabelSpace(name, tuple(colours), tuple(colours.values()))
    for name, colours in (
        ("cityscapes19", _CITYSCAPES),
        ("camvid11", _CAMVID),
        ("idd7", _IDD),
        ("pacs7", _PACS),
        ("retina2", _RETINA),
    )
}
"""The built-in label spaces by name."""

_SYNTHIA = tuple(name for name in _CITYSCAPES if name not in ("terrain", "truck", "train"))
MEANS = {
    "miou16": _SYNTHIA,
    "miou13": tuple(name for name in _SYNTHIA if name not in ("wall", "fence", "pole")),
}
"""Means over some classes of a space that papers report: the classes of SYNTHIA, also without thin structures."""

_CITYSCAPES_RAW = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_IDS = RawMap.of({raw: i for i, raw in enumerate(_CITYSCAPES_RAW)}, ignored=(*range(34), IGNORE))
"""Cityscapes ``labelIds`` (0..33; the licence plate, -1, is stored as 255) onto cityscapes19."""

_MAPS: dict[tuple[str, str], dict[str, str]] = {
    ("cityscapes19", "camvid11"): {
        "road": "road",
        "sidewalk": "pavement",
        "building": "building",
        "wall": "fence",
        "fence": "fence",
        "pole": "pole",
        "light": "sign",
        "sign": "sign",
        "vegetation": "tree",
        "terrain": "tree",
        "sky": "sky",
        "person": "pedestrian",
        "rider": "bicyclist",
        "car": "car",
        "truck": "car",
        "bus": "car",
        "train": "car",
        "motorcycle": "bicyclist",
        "bicycle": "bicyclist",
    },
    ("cityscapes19", "idd7"): {
        "road": "drivable",
        "sidewalk": "non-drivable",
        "terrain": "non-drivable",
        "person": "living things",
        "rider": "living things",
        "car": "vehicles",
        "truck": "vehicles",
        "bus": "vehicles",
        "train": "vehicles",
        "motorcycle": "vehicles",
        "bicycle": "vehicles",
        "wall": "road-side objects",
        "fence": "road-side objects",
        "pole": "road-side objects",
        "light": "road-side objects",
        "sign": "road-side objects",
        "building": "far objects",
        "vegetation": "far objects",
        "sky": "sky",
    },
    ("camvid11", "idd7"): {
        "road": "drivable",
        "pavement": "non-drivable",
        "pedestrian": "living things",
        "bicyclist": "living things",
        "car": "vehicles",
        "pole": "road-side objects",
        "sign": "road-side objects",
        "fence": "road-side objects",
        "building": "far objects",
        "tree": "far objects",
        "sky": "sky",
    },
}


def convert(source: LabelSpace, target: LabelSpace) -> np.ndarray | None:
    """The (256,) uint8 table from ids of ``source`` to ids of ``target``, or None if no map is declared.

    For spaces with the same classes in the same order it is the identity. Every id that is not a class of ``source``,
    including 255, becomes 255.
    """
    names = _MAPS.get((source.name, target.name))
    if source.classes == target.classes:
        names = {name: name for name in source.classes}
    elif names is None or set(names) != set(source.classes) or not set(names.values()) <= set(target.classes):
        return None
    table = np.full(256, IGNORE, dtype=np.uint8)
    for name, onto in names.items():
        table[source.index(name)] = target.index(onto)
    return table


def find_label_space(name_or_path: "str | Path | LabelSpace") -> LabelSpace:
    """The built-in space of this name, or the space of a ``classes.yaml`` (or of a folder that contains one).

    Raises:
        InputError: for an unknown name (the message names the nearest built-in space), or an invalid file.
    """
    if isinstance(name_or_path, LabelSpace):
        return name_or_path
    if str(name_or_path) in SPACES:
        return SPACES[str(name_or_path)]
    path = expanded(name_or_path)
    if path.is_dir():
        path = path / "classes.yaml"
    if path.is_file():
        return read_classes(path).space
    have = ", ".join(SPACES)
    hint = nearest(str(name_or_path), SPACES)
    raise InputError(f"there is no label space {str(name_or_path)!r}{hint}; there are: {have}, or give a classes.yaml")


# --------------------------------------------------------------------------------------------------- classes.yaml


@dataclass(frozen=True)
class Classes:
    """The content of a ``classes.yaml``.

    Attributes:
        space: the classes, with the name of the file's folder.
        ids: the map for index masks.
        colours: the map for RGB masks; None if no entry has a colour.
    """

    space: LabelSpace
    ids: RawMap
    colours: ColourMap | None


def read_classes(path: Path) -> Classes:
    """Read a ``classes.yaml``: a list with one entry per class, in the order of their ids.

    Each entry has a ``name`` and can have a ``colour`` (three numbers, required for RGB masks), and ``id`` or ``ids``:
    the raw ids of the class in index masks (by default its index among the classes). An entry with ``ignore: true`` is
    not a class: its ids and its colour are ignored in masks. 255 is ignored unless a class has this id. ::

        - {name: road, colour: [128, 64, 128], ids: [7, 6]}
        - {name: sky, colour: [70, 130, 180], id: 23}
        - {name: void, colour: [0, 0, 0], ids: [0, 1], ignore: true}

    Raises:
        InputError: for an invalid file; the message names the file and the entry.
    """
    entries = _entries(path)
    names = [e["name"] for e in entries if not e.get("ignore", False)]
    ids: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    shown: list[Colour] = []
    for entry in entries:
        ignored = bool(entry.get("ignore", False))
        target = IGNORE if ignored else len(shown)
        for raw in _raw_ids(path, entry, None if ignored else target):
            _claim(path, entry["name"], "id", ids, raw, target)
        colour = _colour(path, entry)
        if colour is not None:
            _claim(path, entry["name"], "colour", colours, colour, target)
        if not ignored:
            shown.append(colour or _spread(target, len(names)))
    space = LabelSpace(path.resolve().parent.name, tuple(names), tuple(shown))
    return Classes(space, RawMap.of(ids), ColourMap.of(colours) if colours else None)


_KEYS = ("name", "colour", "id", "ids", "ignore")


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = safe_yaml.read(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: it must be a list of classes such as '- {{name: road, colour: [128, 64, 128]}}'")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: entry {place} is {quoted(entry)}; write it with a name, such as {{name: road}}")
        for key in entry:
            if key not in _KEYS:
                raise InputError(
                    f"{path}: class {entry['name']!r} has an unknown key {quoted(key)}{nearest(str(key), _KEYS)}"
                )
        if not isinstance(entry.get("ignore", False), bool):
            raise InputError(
                f"{path}: ignore {quoted(entry['ignore'])} of class {entry['name']!r} is not true or false"
            )
        if "id" in entry and "ids" in entry:
            raise InputError(f"{path}: class {entry['name']!r} has both id and ids; keep one of them")
    return entries


def _raw_ids(path: Path, entry: Mapping[str, Any], place: int | None) -> list[int]:
    default = [] if place is None else [place]
    given = entry.get("ids", entry.get("id", default))
    ids = given if isinstance(given, list) else [given]
    for raw in ids:
        if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < 2**16:
            raise InputError(f"{path}: id {quoted(raw)} of class {entry['name']!r} is not a number from 0 to 65535")
    return ids


def _colour(path: Path, entry: Mapping[str, Any]) -> Colour | None:
    if "colour" not in entry:
        return None
    given = entry["colour"]
    if not isinstance(given, list) or len(given) != 3 or not all(is_integer(c) and c <= 255 for c in given):
        raise InputError(
            f"{path}: colour {quoted(given)} of class {entry['name']!r} is not three numbers from 0 to 255"
        )
    return given[0], given[1], given[2]


def _claim(path: Path, name: str, what: str, claimed: dict[Any, int], value: Any, target: int) -> None:
    if claimed.setdefault(value, target) != target:
        raise InputError(f"{path}: {what} {value} of class {name!r} is already taken by another class")


def _spread(place: int, count: int) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(place / count, 0.6, 0.55 + 0.4 * (place % 2))
    return round(255 * r), round(255 * g), round(255 * b)
