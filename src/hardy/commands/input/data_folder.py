"""A folder of data that the user names: its data set, its domains, and how a first recipe uses it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hardy.data import sources
from hardy.data.base import Domain
from hardy.data.label_spaces import SPACES
from hardy.errors import InputError
from hardy.files import expanded
from hardy.registry import DATASETS

__all__ = ["DataFolder", "find", "whole"]

_UNSEEN = {"camvid": ("camvid/0001TP",), "pacs": ("pacs/sketch",)}
"""The usual unseen domains of some data sets: the drive at dusk, the sketches."""

_OWN = "folder"


@dataclass(frozen=True)
class DataFolder:
    """Data found in a folder.

    Attributes:
        dataset: its name in ``hardy list dataset``.
        root: the folder of all data sets, for a recipe's ``data.root``; None if the options name the folder.
        options: the options of the data set, for ``data.datasets``.
        domains: all its domains, at least one.
        others: other data sets in the same folder.
    """

    dataset: str
    root: Path | None
    options: dict[str, Any]
    domains: Sequence[Domain]
    others: tuple[str, ...] = field(default=())

    @property
    def image_level(self) -> bool:
        """Whether there is one class per image, not per pixel."""
        return self.domains[0].dataset.image_level

    @property
    def classes(self) -> str:
        """The label space, as a recipe names it."""
        space = self.domains[0].dataset.label_space
        return space.name if space.name in SPACES else str(self.domains[0].dataset.root)  # type: ignore[attr-defined]

    @property
    def unseen(self) -> list[str]:
        """The domains that are only measured: the usual ones, or the one with the fewest images; none if there is
        one."""
        names = [one.name for one in self.domains]
        usual = [name for name in _UNSEEN.get(self.dataset, ()) if name in names]
        if usual or len(names) < 2:
            return usual if len(names) > len(usual) else []
        return [min(reversed(self.domains), key=lambda one: len(one.items())).name]

    @property
    def trained(self) -> list[str]:
        """The domains that are trained on."""
        return [one.name for one in self.domains if one.name not in self.unseen]

    def size(self) -> tuple[int, int]:
        """(height, width) of its first image."""
        domain = self.domains[0]
        height, width = domain.dataset.read(domain.items()[0])[0].shape[:2]
        return int(height), int(width)

    def section(self) -> dict[str, Any]:
        """The part of a recipe's section ``data`` that names the data and its folder."""
        found: dict[str, Any] = {"sources": self.trained, "unseen": self.unseen}
        found |= {"root": str(self.root)} if self.root else {}
        return found | ({"datasets": {self.dataset: dict(self.options)}} if self.options else {})


def find(folder: Path | str) -> DataFolder:
    """The data in ``folder``: a data set that Hardy knows, several of them, or images with masks and classes.

    Raises:
        InputError: if there is no such folder, or nothing in it can be used; the message says what is missing.
    """
    place = expanded(folder).resolve()
    if not place.is_dir():
        raise InputError(f"{folder}: there is no such folder; give a folder of data")
    own, reason = _domains(_OWN, {"root": str(place)})
    known = [name for name in DATASETS if name != _OWN and not DATASETS.get(name).drawn]  # type: ignore[attr-defined]
    below = {name: found for name in known if (found := _below(name, place))}
    if own and not any(_files(own) & _files(found) for found in below.values()):
        return DataFolder(_OWN, None, {"root": str(place)}, own)
    if below:
        name, *others = below
        return DataFolder(name, place, {}, below[name], tuple(others))
    if place.name in known and (found := _below(place.name, place.parent)):
        return DataFolder(place.name, place.parent, {}, found)
    if (place / "images").is_dir() and (place / "masks").is_dir():
        raise InputError(f"{reason}; every mistake of the folder: hardy data check {folder}")
    raise InputError(
        f"{folder}: it contains none of the data sets {', '.join(known)}, nor images/, masks/ and classes.yaml of "
        "your own"
    )


def whole(size: tuple[int, int], longest: int, *, enlarge: bool = False) -> tuple[int, int]:
    """``size`` reduced to a longer side of about ``longest`` at most; each side is rounded to a multiple of 32.

    With ``enlarge`` a smaller size is also brought to it."""
    factor = longest / max(size)
    factor = factor if enlarge else min(1.0, factor)
    height, width = (max(32, 32 * round(side * factor / 32)) for side in size)
    return height, width


def _files(domains: Sequence[Domain]) -> set[str]:
    """The names of the images of ``domains``."""
    return {domain.dataset.name_of(item) for domain in domains for item in domain.items()}


def _below(name: str, root: Path) -> list[Domain]:
    """The domains of the data set ``name`` in a sub-folder of ``root``; none when it is not there."""
    found, _ = _domains(name, {"root": str(root)})
    return found


def _domains(name: str, options: dict[str, Any]) -> tuple[list[Domain], str]:
    """The domains with images, or why there are none."""
    try:
        found = sources.domains([name], root=Path(options["root"]), options={name: options})
    except InputError as error:
        return [], str(error)
    return [one for one in found if one.items()], ""
